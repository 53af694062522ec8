package bios

import "encoding/binary"

// iPXE's payload is filtered before it is packed: the targets of CALL and JMP
// rel32 are stored absolute, so that calls of one function look alike. This is
// not the x86 filter of xz: it goes by the whole operand instead of its top
// byte, and never looks into the four bytes behind an opcode.
//
// With o the opcode's offset and l the payload's length less one instruction,
// a relative target r is stored as
//
//	r+o    if -o ≤ r < l-o     (it lies in the payload)
//	r-l    if l-o ≤ r < l      (the values that the first case took away)
//	r      otherwise
//
// which maps 32-bit numbers one to one.
const callSize = 5 // opcode e8 or e9, 32-bit operand

// decodeCalls makes the targets relative again, in place: what the unpacker
// inside the binary does.
func decodeCalls(p []byte) {
	eachCall(p, func(stored, o, l int64) int64 {
		switch {
		case 0 <= stored && stored < l:
			return stored - o
		case -o <= stored && stored < 0:
			return stored + l
		}
		return stored
	})
}

// encodeCalls undoes decodeCalls, in place.
func encodeCalls(p []byte) {
	eachCall(p, func(r, o, l int64) int64 {
		switch {
		case -o <= r && r < l-o:
			return r + o
		case l-o <= r && r < l:
			return r - l
		}
		return r
	})
}

// eachCall replaces every operand, read as a signed number. Both directions
// see the same opcodes, since an operand is never searched for further ones.
func eachCall(p []byte, convert func(operand, offset, limit int64) int64) {
	limit := len(p) - callSize
	for o := 0; o <= limit; o++ {
		if p[o]&0xfe != 0xe8 {
			continue
		}
		operand := p[o+1 : o+callSize]
		v := int64(int32(binary.LittleEndian.Uint32(operand)))
		binary.LittleEndian.PutUint32(operand, uint32(convert(v, int64(o), int64(limit))))
		o += callSize - 1
	}
}
