package ipxebuild

import (
	"bytes"
	"encoding/binary"
	"errors"
	"regexp"
)

var syslinuxBanner = regexp.MustCompile(`(?:PXELINUX|ISOLINUX) ([0-9]+\.[0-9]+) (?:lwIP )?([0-9]{8})`)

// readSyslinux looks for what the formats say of themselves; syslinux has no
// digest in its files.
func (b *Base) readSyslinux() error {
	d := b.Data
	switch b.Kind {
	case KindPXELinux:
		if !bytes.Contains(d, []byte("PXELINUX ")) || !bytes.Contains(d, []byte("lwIP")) {
			return errors.New("is not an lpxelinux.0")
		}
	case KindLDLinux:
		if len(d) < 20 || !bytes.HasPrefix(d, []byte("\x7fELF\x01\x01")) || binary.LittleEndian.Uint16(d[18:]) != 3 {
			return errors.New("is not a 32-bit ELF module, which ldlinux.c32 for BIOS is")
		}
	case KindIsolinux:
		if len(d) < 2048 || !bytes.Contains(d, []byte("ISOLINUX ")) {
			return errors.New("is not an isolinux.bin")
		}
	case KindMBR:
		if len(d) != 432 && len(d) != 440 {
			return errors.New("is not boot code for a hybrid ISO, which has 432 bytes")
		}
	}
	return nil
}

// syslinuxVersion is what syslinux's binaries say, "6.04-20250413"; empty if
// there is none among them that says it.
func syslinuxVersion(bases []Base) string {
	for _, b := range bases {
		if m := syslinuxBanner.FindSubmatch(b.Data); m != nil && b.Kind.project() == projectSyslinux {
			return string(m[1]) + "-" + string(m[2])
		}
	}
	return ""
}
