package ipxebuild

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/ipxebuild/disk"
	"github.com/nestboot/nestboot/ipxebuild/single"
)

// patched is a UEFI binary with the set's trust that looks for its script
// under the given name.
func (s *Set) patched(h held, script string) []byte {
	out := h.patch(s.cfg.Root)
	rename(out, script)
	return out
}

// singleEFI is a binary of ours that carries iPXE and the script. iPXE looks
// for a script beside it first, under a name that nobody can know who has not
// got the file.
func (s *Set) singleEFI(h held) ([]byte, error) {
	return single.EFI(h.Arch, s.patched(h, nameFrom("single", s.script)), s.script)
}

func (s *Set) singleBIOS() ([]byte, error) { return single.BIOS(s.trusted.lkrn, s.script) }

// loaderConfig is the configuration of pxelinux and isolinux.
func (s *Set) loaderConfig() []byte {
	return []byte(s.cfg.Options.Console.serialLine() +
		"DEFAULT nestboot\nPROMPT 0\nLABEL nestboot\n  KERNEL " + nameLKRN + "\n  INITRD " + initrdName + "\n")
}

// disk is the hybrid image.
func (s *Set) disk() ([]byte, error) {
	c := disk.Config{Label: strings.ToUpper(strings.ReplaceAll(s.cfg.Name, "-", "_"))}
	if h, ok := s.base(boot.AMD64, nameAMD64, nameEFI, nameSNP); ok {
		if err := s.addESP(&c, h, "EFI/BOOT/BOOTX64.EFI"); err != nil {
			return nil, err
		}
	}
	if h, ok := s.base(boot.ARM64, nameARM64, nameEFI); ok {
		if err := s.addESP(&c, h, "EFI/BOOT/BOOTAA64.EFI"); err != nil {
			return nil, err
		}
	}
	c.ISO = []disk.File{{Path: "notice.txt", Data: s.notice()}}
	if s.diskBIOS() {
		c.Isolinux, c.MBR = s.stock.syslinux[KindIsolinux].Data, s.stock.syslinux[KindMBR].Data
		c.ISO = append(c.ISO,
			disk.File{Path: "isolinux.cfg", Data: s.loaderConfig()},
			disk.File{Path: nameLDLinux, Data: s.stock.syslinux[KindLDLinux].Data},
			disk.File{Path: nameLKRN, Data: s.trusted.lkrn},
			disk.File{Path: initrdName, Data: s.script})
	}
	id := sha256.Sum256(fmt.Appendf(nil, "nestboot disk\x00%s\x00%x\x00%s", s.cfg.release.version, s.cfg.Root, s.script))
	c.ID = [16]byte(id[:])
	return disk.Write(c)
}

func (s *Set) addESP(c *disk.Config, h held, path string) error {
	data, err := s.singleEFI(h)
	c.ESP = append(c.ESP, disk.File{Path: path, Data: data})
	return err
}
