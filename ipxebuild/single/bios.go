package single

import (
	_ "embed" // the compiled network boot program
	"encoding/binary"
	"fmt"
)

//go:embed stub/nbp.bin
var nbp string

// Where things lie in a BIOS machine's memory, in bytes.
const (
	loadAddr   = 0x7c00    // where PXE puts a boot file and jumps to (PXE 2.1, 4.4.5)
	kernelAddr = 0x100000  // of a kernel's protected-mode part
	scriptAddr = 0x4000000 // far above what iPXE unpacks itself to at the start; seen with 1.21.1 and 2.0.0
	// lowEnd is where a boot file must end: above that PXE ROMs keep code,
	// data and stack (0x6d2d4 worked under QEMU's). How much really is free
	// the program sees when it runs, and refuses with a message.
	lowEnd = 0x70000
	// maxReal is the most that a kernel's real-mode part may have: it runs
	// where it was loaded, with its stack from 0xfff0 downwards.
	maxReal = 0x8000
)

// header is the start of nbp.s as the packer fills it in, little-endian.
type header struct {
	Jump           [4]byte
	Magic          [12]byte
	Kernel, Script move
	Segment        uint16 // of the kernel's first sector
	Paragraphs     uint16 // the file's size in units of 16 bytes
	Sum            uint32 // makes the sum of the file's 32-bit words 0
}

// move is what the program copies: Size bytes from one linear address to another.
type move struct{ From, To, Size uint32 }

const magic = "nestboot 1\n\x00"

// BIOS joins our network boot program, iPXE as a Linux kernel (ipxe.lkrn,
// stock or patched) and a script, lines of ASCII behind #!ipxe, that iPXE
// takes from its initrd. The same input makes the same bytes. A result too
// large for a PXE ROM is an error.
func BIOS(lkrn, script []byte) ([]byte, error) {
	k, err := readKernel(lkrn)
	if err != nil {
		return nil, fmt.Errorf("iPXE for the single BIOS file: %w", err)
	}
	if err := checkScript(script); err != nil {
		return nil, err
	}
	kernelAt := len(nbp)
	scriptAt := up(kernelAt+len(lkrn), 16)
	size := up(scriptAt+len(script), 16)
	if size > lowEnd-loadAddr {
		return nil, fmt.Errorf("single BIOS file would have %d bytes, and a PXE ROM has room for %d: "+
			"use undionly.kpxe or the pxelinux directory for this set", size, lowEnd-loadAddr)
	}
	var h header
	if _, err := binary.Decode([]byte(nbp), binary.LittleEndian, &h); err != nil {
		return nil, fmt.Errorf("read network boot program: %w", err)
	}
	h.Kernel = move{uint32(loadAddr + kernelAt + k.real), kernelAddr, uint32(len(lkrn) - k.real)}
	h.Script = move{uint32(loadAddr + scriptAt), scriptAddr, uint32(len(script))}
	h.Segment = uint16((loadAddr + kernelAt) / 16)
	h.Paragraphs = uint16(size / 16)

	out := make([]byte, size)
	copy(out, nbp)
	copy(out[kernelAt:], lkrn)
	setLoader(out[kernelAt:], loader{typeOther, scriptAddr, uint32(len(script))})
	copy(out[scriptAt:], script)
	if _, err := binary.Encode(out, binary.LittleEndian, h); err != nil {
		return nil, fmt.Errorf("write header: %w", err)
	}
	h.Sum = -sum(out)
	if _, err := binary.Encode(out, binary.LittleEndian, h); err != nil {
		return nil, fmt.Errorf("write header: %w", err)
	}
	return out, nil
}

// sum adds up the 32-bit words of data, whose length is a multiple of four.
func sum(data []byte) uint32 {
	var s uint32
	for i := 0; i+3 < len(data); i += 4 {
		s += binary.LittleEndian.Uint32(data[i:])
	}
	return s
}
