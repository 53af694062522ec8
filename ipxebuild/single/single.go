// Package single makes boot artifacts of one file that need nothing beside
// them: a small program of ours, a stock iPXE binary and a script, joined so
// that the firmware starts the first, which starts the second with the third.
//
// EFI and BIOS join, ReadEFI and ReadBIOS take apart again. Our programs lie
// with their sources in stub/ and are committed compiled: `make generate`
// renews them, nobody else needs a compiler. What the script says and which
// iPXE it is (patched or not) is the caller's business.
package single

import (
	"bytes"
	"errors"
	"fmt"
)

// ErrNotSingle is wrapped by the error of ReadEFI or ReadBIOS for a file that
// is no artifact of this package at all, as against one that is damaged.
var ErrNotSingle = errors.New("not a single-file artifact of nestboot")

const (
	// maxFile is the largest EFI program that is read. Ours have about 1 MiB.
	maxFile = 4 << 20
	// maxScript is the longest script that is packed: with the certificate
	// and the key of RSA-4096 one has about 10 KiB. iPXE 1.21.1 and 2.0.0
	// both ran one of 61 KiB from their load options, 1.21.1 also as initrd.
	maxScript = 64 << 10
	// shebang begins each script. iPXE tells by it that an initrd is one.
	shebang = "#!ipxe\n"
)

// checkScript accepts what goes through UEFI's UTF-16 load options as well as
// through an initrd: lines of printable ASCII behind #!ipxe.
func checkScript(script []byte) error {
	if len(script) > maxScript {
		return fmt.Errorf("script has %d bytes, more than %d", len(script), maxScript)
	}
	if !bytes.HasPrefix(script, []byte(shebang)) {
		return fmt.Errorf("script begins with %.20q: want the line #!ipxe", script)
	}
	for i, c := range script {
		if c != '\n' && (c < ' ' || c > '~') {
			return fmt.Errorf("script line %d holds the byte %#02x: want printable ASCII",
				bytes.Count(script[:i], []byte("\n"))+1, c)
		}
	}
	if script[len(script)-1] != '\n' {
		return errors.New("script's last line does not end: it may have been cut short")
	}
	return nil
}

// up rounds n up to a multiple of to, a power of two.
func up(n, to int) int { return (n + to - 1) &^ (to - 1) }
