package bios

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// A block is a 32-bit little-endian length, LZMA data without its 13-byte
// header, and a CRC-32 over that data without the final inversion, so that a
// CRC over both comes to 0. The length counts data and CRC. Blocks begin at
// multiples of 16. Stock binaries have four; the last one holds iPXE and ends
// with the file.
const (
	blockAlign = 16
	lengthSize = 4
	crcSize    = 4
	// minBody is LZMA's shortest data (5 bytes of the range coder) and the CRC.
	minBody = 5 + crcSize
	// maxCandidates bounds the CRCs taken of a file that has a plausible
	// length at many places. Chance makes none in a stock binary.
	maxCandidates = 8
)

// blockEnd is where the block at offset would end, or 0 if it could not end
// within data.
func blockEnd(data []byte, offset int) int {
	if offset+lengthSize+minBody > len(data) {
		return 0
	}
	n := int64(binary.LittleEndian.Uint32(data[offset:]))
	if n < minBody || n > int64(len(data)-offset-lengthSize) {
		return 0
	}
	return offset + lengthSize + int(n)
}

func blockValid(data []byte, offset, end int) bool {
	sum := binary.LittleEndian.Uint32(data[end-crcSize:])
	return ^crc32.ChecksumIEEE(data[offset+lengthSize:end-crcSize]) == sum
}

// lastBlock finds the one block that ends where data ends.
func lastBlock(data []byte) (int, error) {
	var found []int
	candidates := 0
	for off := blockAlign; off < min(len(data), maxPrefix); off += blockAlign {
		if blockEnd(data, off) != len(data) {
			continue
		}
		if candidates++; candidates > maxCandidates {
			return 0, fmt.Errorf("more than %d places look like its last block", maxCandidates)
		}
		if blockValid(data, off, len(data)) {
			found = append(found, off)
		}
	}
	prefix := data[:min(len(data), maxPrefix)]
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return 0, fmt.Errorf("%d blocks end where the file ends, at %#x", len(found), found)
	case firstBlock(prefix) < len(prefix):
		return 0, errors.New("its last block does not end where the file ends, or has a wrong CRC: " +
			"the file was cut short, appended to or damaged")
	}
	return 0, errors.New("it holds no compressed iPXE")
}

// firstBlock is where the first block that lies within data begins, or
// data's length if there is none.
func firstBlock(data []byte) int {
	for off := blockAlign; off < len(data); off += blockAlign {
		if end := blockEnd(data, off); end != 0 && blockValid(data, off, end) {
			return off
		}
	}
	return len(data)
}

// properties are those that iPXE's unpacker has built in.
func properties() lzma.Properties { return lzma.Properties{LC: 2, LP: 0, PB: 0} }

// unpack decodes a block that has been found valid.
func unpack(block []byte) ([]byte, error) {
	p := properties()
	// The header that iPXE leaves out: properties, dictionary size, unknown
	// length. iPXE's dictionary is all that it has unpacked.
	var stream bytes.Buffer
	stream.WriteByte(p.Code())
	stream.Write(binary.LittleEndian.AppendUint32(nil, maxPayload))
	stream.Write(bytes.Repeat([]byte{0xff}, 8))
	stream.Write(block[lengthSize : len(block)-crcSize])
	in := bytes.NewReader(stream.Bytes())
	r, err := lzma.ReaderConfig{DictCap: maxPayload}.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("begin LZMA: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(r, maxPayload+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read LZMA: %w", err)
	case len(out) > maxPayload:
		return nil, fmt.Errorf("it unpacks to more than %d bytes", maxPayload)
	case in.Len() != 0:
		return nil, fmt.Errorf("%d bytes follow the end of its LZMA data", in.Len())
	case len(out) < callSize:
		return nil, fmt.Errorf("it unpacks to %d bytes, no program", len(out))
	}
	return out, nil
}

// pack encodes a block. Matches reach back dict bytes at most.
func pack(data []byte, dict int) ([]byte, error) {
	p := properties()
	out := bytes.NewBuffer(make([]byte, 0, len(data)/2))
	// A binary tree as matcher takes seconds and packs worse.
	c := lzma.WriterConfig{Properties: &p, DictCap: max(dict, lzma.MinDictCap), Matcher: lzma.HashTable4, EOSMarker: true}
	w, err := c.NewWriter(out)
	if err != nil {
		return nil, fmt.Errorf("begin LZMA: %w", err)
	}
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("write LZMA: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("end LZMA: %w", err)
	}
	body := out.Bytes()[lzma.HeaderLen:]
	block := binary.LittleEndian.AppendUint32(nil, uint32(len(body)+crcSize))
	block = append(block, body...)
	return binary.LittleEndian.AppendUint32(block, ^crc32.ChecksumIEEE(body)), nil
}
