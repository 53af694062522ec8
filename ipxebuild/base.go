// Package ipxebuild makes boot artifacts from stock iPXE binaries: it reads the
// binaries out of packages and folders, patches the trust root in, renders the
// script that carries a set's identity, and makes all formats of the set's
// files; and it reads its own files back.
//
// Nothing is compiled, and nothing is read or written but by ReadPath and
// WriteTo: bytes in, bytes out, in milliseconds, the same for the same input. It does not
// decide who may fetch the result. The formats themselves are made by bios
// (compressed BIOS binaries), single (one-file artifacts) and disk (the image).
//
// Begin at ReadPath, ReadDeb and ReadDir, NewStock, Stock.Set, Set.Render; and Inspect.
package ipxebuild

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/ipxebuild/bios"
)

// stockFingerprint is the SHA-256 of the root certificate of ipxe.org, which
// every stock binary trusts and holds exactly once
// (src/crypto/rootcert.c; seen in Debian's 1.21.1+git20250501 and 2.0.0).
const stockFingerprint = "9faf717b7f8ca2f93c256c79f8ac5591895d66d1ff3bee6397a70d29c65eed1a"

// maxBase is the largest binary that is taken. The largest stock one has
// about 1 MiB.
const maxBase = 16 << 20

// Base is a binary that has been checked and that sets can be made of.
type Base struct {
	Name    string // of the file
	Kind    Kind
	Arch    boot.Arch
	Version string            // of iPXE as the binary says; empty for others
	SHA256  [sha256.Size]byte // of the stock binary
	Data    []byte            // the stock binary; not to be changed

	image   *bios.Image // of KindKPXE and KindLKRN
	trust   int         // offset of the fingerprint, in Data or in the image's payload
	lacks   []string    // optional commands that it does not have
	partner string      // of a shim: the name under which it starts the next program
}

// ReadBase checks that data is one of the binaries that sets are made of, by
// its name: a whole file of the format and for an architecture that we know;
// if it is iPXE, holding iPXE's root fingerprint exactly once, BIOS binaries
// after unpacking. A signed .efi is accepted as it is and never patched. The
// error names the file and what to do. It keeps data.
func ReadBase(name string, data []byte) (Base, error) {
	kind, ok := kinds[name]
	if !ok {
		return Base{}, fmt.Errorf("%s is not the name of a binary that sets are made of", name)
	}
	fix := "want a stock binary as Debian's package ipxe 1.21.1 or newer ships it"
	if !kind.isIPXE() {
		fix = "want it as Debian ships it, in pxelinux, isolinux, syslinux-common or shim-signed"
	}
	if len(data) > maxBase {
		return Base{}, fmt.Errorf("%s has %d bytes, more than any boot program: %s", name, len(data), fix)
	}
	b := Base{Name: name, Kind: kind, Arch: boot.AMD64, SHA256: sha256.Sum256(data), Data: data}
	if err := b.read(); err != nil {
		return Base{}, fmt.Errorf("%s %w: %s", name, err, fix)
	}
	return b, nil
}

func (b *Base) read() error {
	switch b.Kind {
	case KindEFI, KindShim:
		return b.readEFI()
	case KindKPXE, KindLKRN:
		return b.readBIOS()
	}
	return b.readSyslinux()
}

// readBIOS unpacks the binary and looks inside.
func (b *Base) readBIOS() error {
	image, err := bios.Read(b.Data)
	if err != nil {
		return fmt.Errorf("is not a BIOS iPXE: %w", err)
	}
	if want := map[Kind]bios.Kind{KindKPXE: bios.KPXE, KindLKRN: bios.LKRN}[b.Kind]; image.Kind() != want {
		return fmt.Errorf("is a %s by its content", image.Kind())
	}
	payload := image.Payload()
	b.image = image
	if err := b.readIPXE(payload); err != nil {
		return err
	}
	b.Version = plainVersion(payload)
	return b.needVersion()
}

// readIPXE finds what is patched and what iPXE can do, in plain machine code.
func (b *Base) readIPXE(code []byte) error {
	stock, err := hex.DecodeString(stockFingerprint)
	if err != nil {
		return fmt.Errorf("cannot be checked: decode stock fingerprint: %w", err)
	}
	if n := bytes.Count(code, stock); n != 1 {
		return fmt.Errorf("holds the fingerprint of iPXE's root certificate %d times instead of once, "+
			"so its trust cannot be patched", n)
	}
	b.trust = bytes.Index(code, stock)
	for _, command := range optionalCommands {
		if !bytes.Contains(code, []byte(command+"\x00")) {
			b.lacks = append(b.lacks, command)
		}
	}
	return nil
}

func (b *Base) needVersion() error {
	if b.Version == "" {
		return errors.New("does not say which version of iPXE it is")
	}
	return nil
}

// lack is a command of those given that the base does not have; empty: none.
func (b *Base) lack(commands []string) string {
	for _, c := range commands {
		for _, l := range b.lacks {
			if c == l {
				return c
			}
		}
	}
	return ""
}

// patch is a UEFI binary with its trust root replaced by the certificate whose
// DER encoding has the given SHA-256.
func (b Base) patch(root [sha256.Size]byte) []byte {
	out := bytes.Clone(b.Data)
	copy(out[b.trust:], root[:])
	return out
}
