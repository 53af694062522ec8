package bios

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// kindOf tells the kind from the first bytes.
func kindOf(data []byte) (Kind, error) {
	switch {
	case len(data) >= linuxHeaderEnd && string(data[0x202:0x206]) == "HdrS" && data[0x1fe] == 0x55 && data[0x1ff] == 0xaa:
		return LKRN, nil
	// A far jump to segment 0x7c0, where PXE loads a program.
	case len(data) >= 5 && data[0] == 0xea && data[3] == 0xc0 && data[4] == 0x07:
		return KPXE, nil
	case bytes.HasPrefix(data, []byte("MZ")):
		return "", errors.New("it is a UEFI or DOS program, which is not compressed this way")
	}
	return "", errors.New("it begins neither as a PXE boot program nor as a Linux boot image")
}

// Linux boot protocol (Documentation/arch/x86/boot.rst).
const (
	setupSectsAt   = 0x1f1 // sectors of 512 bytes of real-mode code behind the first; iPXE has 5
	syssizeAt      = 0x1f4 // 32 bits: size of the rest of the file in paragraphs
	linuxHeaderEnd = 0x208
)

// sizeField is the number in the header that follows the file's size, in
// paragraphs of 16 bytes, rounded up.
type sizeField struct {
	offset int
	width  int // bytes
	from   int // bytes at the file's beginning that it does not count
}

func (f sizeField) want(fileSize int) uint32 { return uint32((fileSize - f.from + 15) / 16) }

func (f sizeField) get(file []byte) uint32 {
	if f.width == 2 {
		return uint32(binary.LittleEndian.Uint16(file[f.offset:]))
	}
	return binary.LittleEndian.Uint32(file[f.offset:])
}

func (f sizeField) set(file []byte) error {
	want := f.want(len(file))
	if f.width == 2 {
		if want > 0xffff {
			return fmt.Errorf("the result of %d bytes is too large for its 16-bit size field", len(file))
		}
		binary.LittleEndian.PutUint16(file[f.offset:], uint16(want))
		return nil
	}
	binary.LittleEndian.PutUint32(file[f.offset:], want)
	return nil
}

// findSize locates the size field in the header, which ends at the first
// block, and checks that it fits the file.
func findSize(kind Kind, file []byte, header int) (sizeField, error) {
	if kind == LKRN {
		return linuxSize(file)
	}
	// Nothing marks the field, but no other 16-bit number has its value.
	var found []sizeField
	for off := 0; off+2 <= header; off++ {
		if f := (sizeField{offset: off, width: 2}); f.get(file) == f.want(len(file)) {
			found = append(found, f)
		}
	}
	if len(found) != 1 {
		return sizeField{}, fmt.Errorf("its header holds the file's size in paragraphs, %#x, at %d places instead of one",
			(len(file)+15)/16, len(found))
	}
	return found[0], nil
}

func linuxSize(file []byte) (sizeField, error) {
	f := sizeField{offset: syssizeAt, width: 4, from: (int(file[setupSectsAt]) + 1) * 512}
	if f.from > len(file) || f.get(file) != f.want(len(file)) {
		return sizeField{}, fmt.Errorf("its Linux header tells of %d bytes behind the first %d, "+
			"which does not fit the file", int64(f.get(file))*16, f.from)
	}
	return f, nil
}
