// Package ipxebuild makes boot artifacts from stock iPXE binaries: it patches
// the trust root in, renders the script that carries a set's identity, and
// lays both out as the files of a set.
//
// Nothing is compiled, and nothing is read or written here: bytes in, bytes
// out, in a few milliseconds. It does not decide who may fetch the result.
// Begin at ReadBase, Script and Layout.
package ipxebuild

import (
	"bytes"
	"crypto/sha256"
	"debug/pe"
	"encoding/hex"
	"fmt"

	"github.com/nestboot/nestboot/boot"
)

// stockFingerprint is the SHA-256 of the root certificate of ipxe.org, which
// every stock binary trusts and holds exactly once
// (src/crypto/rootcert.c; seen in Debian's 1.21.1+git20250501 and 2.0.0).
const stockFingerprint = "9faf717b7f8ca2f93c256c79f8ac5591895d66d1ff3bee6397a70d29c65eed1a"

// maxBase is the largest binary that is taken for iPXE. The largest stock one
// has about 1 MiB.
const maxBase = 16 << 20

// Base is a stock iPXE binary that has been checked and can be patched.
type Base struct {
	Name   string
	Arch   boot.Arch
	SHA256 [sha256.Size]byte // of the stock binary
	data   []byte
	trust  int // offset of the fingerprint
}

// ReadBase checks that data is a stock UEFI iPXE binary: a whole PE file for
// an architecture that we know, holding iPXE's root fingerprint exactly once.
// The error names the file and what to do. It keeps data.
func ReadBase(name string, data []byte) (Base, error) {
	const fix = "want a stock binary as Debian's package ipxe 1.21.1 or newer ships it"
	if len(data) > maxBase {
		return Base{}, fmt.Errorf("%s has %d bytes, more than any iPXE binary: %s", name, len(data), fix)
	}
	arch, err := peArch(data)
	if err != nil {
		return Base{}, fmt.Errorf("%s is not a UEFI program (%w): %s", name, err, fix)
	}
	stock, err := hex.DecodeString(stockFingerprint)
	if err != nil {
		return Base{}, fmt.Errorf("decode stock fingerprint: %w", err)
	}
	if n := bytes.Count(data, stock); n != 1 {
		return Base{}, fmt.Errorf("%s holds the fingerprint of iPXE's root certificate %d times instead of once, "+
			"so its trust cannot be patched: %s", name, n, fix)
	}
	return Base{Name: name, Arch: arch, SHA256: sha256.Sum256(data), data: data, trust: bytes.Index(data, stock)}, nil
}

// Trust is the binary with its trust root replaced by the certificate whose
// DER encoding has the given SHA-256.
func (b Base) Trust(root [sha256.Size]byte) []byte {
	out := bytes.Clone(b.data)
	copy(out[b.trust:], root[:])
	return out
}

// peArch reads the architecture of an EFI application and checks that the
// file holds all of its sections.
func peArch(data []byte) (boot.Arch, error) {
	f, err := pe.NewFile(bytes.NewReader(data))
	if err != nil {
		return "", fmt.Errorf("read PE header: %w", err)
	}
	for _, s := range f.Sections {
		if end := uint64(s.Offset) + uint64(s.Size); end > uint64(len(data)) {
			return "", fmt.Errorf("section %q ends at %d of %d bytes: the file is cut short", s.Name, end, len(data))
		}
	}
	if h, ok := f.OptionalHeader.(*pe.OptionalHeader64); !ok || h.Subsystem != pe.IMAGE_SUBSYSTEM_EFI_APPLICATION {
		return "", fmt.Errorf("not a 64-bit EFI application")
	}
	switch f.Machine {
	case pe.IMAGE_FILE_MACHINE_AMD64:
		return boot.AMD64, nil
	case pe.IMAGE_FILE_MACHINE_ARM64:
		return boot.ARM64, nil
	}
	return "", fmt.Errorf("machine type %#x is neither x86-64 nor arm64", f.Machine)
}
