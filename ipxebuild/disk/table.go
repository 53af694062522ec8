package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"unicode/utf16"
)

// MBR and GPT (UEFI 2.10, 5.2 and 5.3), in blocks of 512 bytes.
const (
	bootCodeSize = 432 // of isohdpfx.bin; behind it lies where to find isolinux.bin
	mbrSerial    = 440
	mbrEntry     = 446
	mbrTypeGPT   = 0xee
	active       = 0x80

	gptMagic      = "EFI PART\x00\x00\x01\x00"
	gptHeaderSize = 92
	gptEntries    = 128
	gptEntrySize  = 128
	gptArray      = gptEntries * gptEntrySize
	gptBackup     = 1 + gptArray/block // blocks of the copy at the end
)

// espType is the GUID of EFI system partitions, C12A7328-F81F-11D2-BA4B-00A0C93EC93B.
const espType = "\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b"

// partition is a range of blocks, both ends included.
type partition struct{ first, last int }

func checkBootCode(mbr []byte) error {
	if len(mbr) != bootCodeSize {
		return fmt.Errorf("isohdpfx.bin has %d bytes, not %d: want the one of Debian's package isolinux", len(mbr), bootCodeSize)
	}
	return nil
}

// serial derives 16 bytes from an image's ID, others for each purpose.
func serial(id [16]byte, purpose string) []byte {
	sum := sha256.Sum256(append(id[:], purpose...))
	return sum[:16]
}

// guid is a serial in the form of a GUID as GPT stores it, version 8 (RFC 9562).
func guid(id [16]byte, purpose string) []byte {
	g := serial(id, purpose)
	g[7] = g[7]&0x0f | 0x80
	g[8] = g[8]&0x3f | 0x80
	return g
}

// writeTables writes MBR and GPT. isolinux is the sector of isolinux.bin, 0
// when there is none.
func writeTables(image []byte, esp partition, c Config, isolinux int) {
	writeMBR(image, c, isolinux)
	entries := make([]byte, gptArray)
	copy(entries, espType)
	copy(entries[16:], guid(c.ID, "esp"))
	binary.LittleEndian.PutUint64(entries[32:], uint64(esp.first))
	binary.LittleEndian.PutUint64(entries[40:], uint64(esp.last))
	for i, u := range utf16.Encode([]rune("EFI system partition")) {
		binary.LittleEndian.PutUint16(entries[56+2*i:], u)
	}
	end := len(image)/block - 1
	copy(image[2*block:], entries)
	copy(image[block:], gptHeader(1, end, 2, esp, entries, c.ID))
	copy(image[len(image)-gptBackup*block:], entries)
	copy(image[end*block:], gptHeader(end, 1, end-gptArray/block, esp, entries, c.ID))
}

// gptHeader is the header that lies at block self, with its copy at other.
func gptHeader(self, other, array int, esp partition, entries []byte, id [16]byte) []byte {
	put32, put64 := binary.LittleEndian.PutUint32, binary.LittleEndian.PutUint64
	h := make([]byte, gptHeaderSize)
	copy(h, gptMagic)
	put32(h[12:], gptHeaderSize)
	put64(h[24:], uint64(self))
	put64(h[32:], uint64(other))
	// The ISO's blocks are nobody's to use: the partition's are the first.
	put64(h[40:], uint64(esp.first))
	put64(h[48:], uint64(max(self, other)-gptBackup))
	copy(h[56:], guid(id, "disk"))
	put64(h[72:], uint64(array))
	put32(h[80:], gptEntries)
	put32(h[84:], gptEntrySize)
	put32(h[88:], crc32.ChecksumIEEE(entries))
	put32(h[16:], crc32.ChecksumIEEE(h))
	return h
}

// writeMBR writes boot code and protective entry. isohdpfx.bin finds
// isolinux.bin by the number of its first block behind the code.
func writeMBR(b []byte, c Config, isolinux int) {
	blocks := len(b) / block
	copy(b, c.MBR)
	copy(b[mbrSerial:mbrSerial+4], serial(c.ID, "mbr"))
	e := b[mbrEntry:]
	copy(e, []byte{0, 0, 2, 0, mbrTypeGPT})
	copy(e[5:], lastCHS(blocks))
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(blocks-1))
	if isolinux != 0 {
		binary.LittleEndian.PutUint64(b[bootCodeSize:], uint64(isolinux)*sector/block)
		// For BIOSes that boot no disk without an active entry: block 0, one of it, type 0.
		copy(e[16:], []byte{active, 0, 1, 0, 0, 0, 1, 0})
		binary.LittleEndian.PutUint32(e[16+12:], 1)
	}
	b[510], b[511] = 0x55, 0xaa
}

// lastCHS is the cylinder, head and sector of a disk's last block, with the
// geometry that BIOSes guess from it: 64 heads of 32. A disk is whole cylinders.
func lastCHS(blocks int) []byte {
	cylinder := blocks/(fatHeads*fatTrack) - 1 // below 64, MaxSize
	return []byte{fatHeads - 1, fatTrack, byte(cylinder)}
}

// readTables checks MBR and GPT and returns the image without what may lie
// behind it on a larger disk, and its partition.
func readTables(data []byte) ([]byte, partition, error) {
	if len(data) < 3*block || data[510] != 0x55 || data[511] != 0xaa || data[mbrEntry+4] != mbrTypeGPT {
		return nil, partition{}, errors.New("no protective MBR: not an image of ours")
	}
	h, entries, err := readGPT(data, 1)
	if err != nil {
		return nil, partition{}, err
	}
	end := binary.LittleEndian.Uint64(h[32:])
	if end >= MaxSize/block {
		return nil, partition{}, fmt.Errorf("GPT says that its copy is at block %d, beyond the largest image", end)
	}
	image, err := cut(data, 0, (end+1)*block)
	if err != nil {
		return nil, partition{}, fmt.Errorf("copy of the GPT: %w", err)
	}
	if _, copied, err := readGPT(image, end); err != nil {
		return nil, partition{}, fmt.Errorf("copy of the GPT: %w", err)
	} else if !bytes.Equal(entries, copied) {
		return nil, partition{}, errors.New("the GPT and its copy differ: damaged")
	}
	first, last := binary.LittleEndian.Uint64(entries[32:]), binary.LittleEndian.Uint64(entries[40:])
	if string(entries[:16]) != espType || first > last || last >= end {
		return nil, partition{}, errors.New("the GPT's first partition is not an EFI system partition on this disk: not an image of ours")
	}
	return image, partition{first: int(first), last: int(last)}, nil
}

// readGPT returns the header at a block, and its entries, checked.
func readGPT(image []byte, at uint64) (header, entries []byte, err error) {
	h, err := cut(image, at*block, gptHeaderSize)
	if err != nil {
		return nil, nil, err
	}
	if !bytes.HasPrefix(h, []byte(gptMagic)) {
		return nil, nil, fmt.Errorf("no GPT at block %d: not an image of ours, or cut short", at)
	}
	zeroed := bytes.Clone(h)
	clear(zeroed[16:20])
	if binary.LittleEndian.Uint32(h[16:]) != crc32.ChecksumIEEE(zeroed) {
		return nil, nil, fmt.Errorf("GPT at block %d is damaged: its checksum is wrong", at)
	}
	array := binary.LittleEndian.Uint64(h[72:])
	if array > MaxSize/block {
		return nil, nil, fmt.Errorf("GPT at block %d: its entries lie beyond the largest image", at)
	}
	entries, err = cut(image, array*block, gptArray)
	if err != nil {
		return nil, nil, fmt.Errorf("entries of the GPT at block %d: %w", at, err)
	}
	if binary.LittleEndian.Uint32(h[88:]) != crc32.ChecksumIEEE(entries) {
		return nil, nil, fmt.Errorf("entries of the GPT at block %d are damaged: their checksum is wrong", at)
	}
	return h, entries, nil
}
