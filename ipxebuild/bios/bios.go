// Package bios opens iPXE's BIOS binaries, undionly.kpxe and ipxe.lkrn, which
// are compressed: it unpacks the part that holds iPXE itself, and packs that
// part again after somebody has changed bytes in it.
//
// It does not know what is worth changing, and compiles nothing. Written from
// the format of Debian's 1.21.1+git20250501 and 2.0.0 and from the unpacker
// that these binaries carry in front of their blocks. Begin at Read.
package bios

import (
	"bytes"
	"errors"
	"fmt"
)

// Kind tells how firmware or a boot loader starts a binary.
type Kind string

const (
	// KPXE is a PXE network boot program (undionly.kpxe; also undionly.kkpxe
	// and ipxe.pxe), loaded at 0x7c00 and entered at its first byte.
	KPXE Kind = "kpxe"
	// LKRN is a Linux boot image (ipxe.lkrn), protocol 2.07.
	LKRN Kind = "lkrn"
)

// Bounds on foreign files. The largest stock binary has 0.4 MB, 5 KB of them
// in front of the last block, and unpacks to 0.9 MB.
const (
	maxFile    = 4 << 20
	maxPrefix  = 32 << 10
	maxPayload = 4 << 20
)

const fix = "want a stock undionly.kpxe or ipxe.lkrn as Debian's package ipxe 1.21.1 or newer ships it"

// Image is a binary that has been read and can be repacked. It never changes
// and may be used by several goroutines.
type Image struct {
	kind    Kind
	prefix  []byte // all in front of the last block
	size    sizeField
	payload []byte
}

// Read unpacks the last compressed block of an iPXE BIOS binary. It refuses
// what it does not understand: a file cut short, appended to or damaged, one
// whose block or size field is missing or could be one of several, and any
// other format. Only the last block is checked by its CRC; the rest of the
// file needs a digest. It keeps nothing of data and allocates less than
// 64 MiB.
func Read(data []byte) (*Image, error) {
	m, err := read(data)
	if err != nil {
		return nil, fmt.Errorf("read iPXE BIOS binary of %d bytes: %w: %s", len(data), err, fix)
	}
	return m, nil
}

func read(data []byte) (*Image, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("more than the %d bytes that any of them has", maxFile)
	}
	kind, err := kindOf(data)
	if err != nil {
		return nil, err
	}
	last, err := lastBlock(data)
	if err != nil {
		return nil, err
	}
	size, err := findSize(kind, data, firstBlock(data[:last]))
	if err != nil {
		return nil, err
	}
	payload, err := unpack(data[last:])
	if err != nil {
		return nil, fmt.Errorf("unpack its last block: %w", err)
	}
	decodeCalls(payload)
	return &Image{kind: kind, prefix: bytes.Clone(data[:last]), size: size, payload: payload}, nil
}

// Kind is the binary's kind.
func (m *Image) Kind() Kind { return m.kind }

// Payload is a copy of iPXE as it runs: unpacked, its instructions and strings
// plain.
func (m *Image) Payload() []byte { return bytes.Clone(m.payload) }

// Repack is the binary with its payload replaced by one of the same length.
// The result is some 10 % larger than a stock file, is the same for the same
// input, and has been unpacked again and compared. It takes about 0.15 s for
// ipxe.lkrn.
func (m *Image) Repack(payload []byte) ([]byte, error) {
	if len(payload) != len(m.payload) {
		return nil, fmt.Errorf("repack iPXE BIOS binary: the payload has %d bytes instead of %d: "+
			"change bytes in place only", len(payload), len(m.payload))
	}
	filtered := bytes.Clone(payload)
	encodeCalls(filtered)
	var out []byte
	var err error
	// A smaller dictionary packs a little worse, and a file of another length
	// is what a second attempt is for (see check).
	for _, dict := range []int{1 << 20, 1 << 17, 1 << 16, 1 << 15, 1 << 14} {
		if out, err = m.assemble(filtered, min(dict, len(filtered))); err != nil {
			return nil, fmt.Errorf("repack iPXE BIOS binary: %w", err)
		}
		if err = m.check(out, payload); err == nil {
			return out, nil
		}
	}
	return nil, fmt.Errorf("repack iPXE BIOS binary: check the result: %w", err)
}

func (m *Image) assemble(filtered []byte, dict int) ([]byte, error) {
	block, err := pack(filtered, dict)
	if err != nil {
		return nil, err
	}
	out := append(bytes.Clone(m.prefix), block...)
	if err := m.size.set(out); err != nil {
		return nil, err
	}
	return out, nil
}

// check reads the result as anybody else would. It fails for a good result
// when the new size happens to stand elsewhere in the header as well, so that
// nobody could tell the field any more.
func (m *Image) check(out, payload []byte) error {
	again, err := read(out)
	if err != nil {
		return err
	}
	if again.kind != m.kind || again.size != m.size || !bytes.Equal(again.payload, payload) {
		return errors.New("it unpacks to something else")
	}
	return nil
}
