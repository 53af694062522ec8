package single

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// BIOSParts is what a file made by BIOS is made of.
type BIOSParts struct {
	LKRN   []byte // byte for byte as it was before
	Script []byte // shares memory with the file
}

// ReadBIOS takes a file apart that BIOS has made, this version's or an earlier
// one's. For any other file the error wraps ErrNotSingle.
func ReadBIOS(data []byte) (BIOSParts, error) {
	var h header
	if _, err := binary.Decode(data, binary.LittleEndian, &h); err != nil || string(h.Magic[:]) != magic {
		return BIOSParts{}, fmt.Errorf("%w: not a network boot program of ours", ErrNotSingle)
	}
	if size := int(h.Paragraphs) * 16; size != len(data) {
		return BIOSParts{}, fmt.Errorf("network boot program has %d bytes of %d: cut short or added to", len(data), size)
	}
	if sum(data) != 0 {
		return BIOSParts{}, errors.New("network boot program is damaged: its checksum is wrong")
	}
	return h.parts(data)
}

// parts finds kernel and script in a whole file.
func (h header) parts(data []byte) (BIOSParts, error) {
	kernelAt := int(h.Segment)*16 - loadAddr
	kernelEnd := int64(h.Kernel.From) + int64(h.Kernel.Size) - loadAddr
	scriptAt := int64(h.Script.From) - loadAddr
	scriptEnd := scriptAt + int64(h.Script.Size)
	if kernelAt < binary.Size(h) || kernelEnd < int64(kernelAt+endOfSetup) || scriptAt < kernelEnd ||
		scriptEnd > int64(len(data)) || h.Kernel.To != kernelAddr || h.Script.To != scriptAddr {
		return BIOSParts{}, errors.New("network boot program's header places its parts where they can't be")
	}
	lkrn := bytes.Clone(data[kernelAt:kernelEnd])
	if getLoader(lkrn) != (loader{typeOther, scriptAddr, h.Script.Size}) {
		return BIOSParts{}, errors.New("network boot program's kernel has another initrd than its header says")
	}
	setLoader(lkrn, loader{})
	k, err := readKernel(lkrn)
	if err != nil {
		return BIOSParts{}, fmt.Errorf("iPXE inside: %w", err)
	}
	if int(h.Kernel.From) != loadAddr+kernelAt+k.real {
		return BIOSParts{}, errors.New("network boot program's header splits its kernel at the wrong place")
	}
	script := data[scriptAt:scriptEnd:scriptEnd]
	if err := checkScript(script); err != nil {
		return BIOSParts{}, err
	}
	return BIOSParts{LKRN: lkrn, Script: script}, nil
}
