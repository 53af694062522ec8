package bios

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestFilter has an instruction at 0x20 of a payload of 0x105 bytes: targets
// may be stored up to 0x100. The stored values follow from the unpacker's
// machine code.
func TestFilter(t *testing.T) {
	for name, tt := range map[string]struct {
		opcode           byte
		relative, stored int32
	}{
		"call forward":                {0xe8, 0x10, 0x30},
		"jump forward":                {0xe9, 0x10, 0x30},
		"call back":                   {0xe8, -0x10, 0x10},
		"to the beginning":            {0xe8, -0x20, 0},
		"just before the beginning":   {0xe8, -0x21, -0x21},
		"to the last place":           {0xe8, 0xdf, 0xff},
		"just behind":                 {0xe8, 0xe0, -0x20},
		"largest that changes places": {0xe8, 0xff, -1},
		"far":                         {0xe8, 0x100, 0x100},
		"farthest":                    {0xe8, 0x7fffffff, 0x7fffffff},
		"far back":                    {0xe8, -0x80000000, -0x80000000},
		"another opcode":              {0xea, 0x10, 0x10},
	} {
		t.Run(name, func(t *testing.T) {
			plain, stored := make([]byte, 0x105), make([]byte, 0x105)
			plain[0x20], stored[0x20] = tt.opcode, tt.opcode
			binary.LittleEndian.PutUint32(plain[0x21:], uint32(tt.relative))
			binary.LittleEndian.PutUint32(stored[0x21:], uint32(tt.stored))
			got := bytes.Clone(plain)
			encodeCalls(got)
			require.Equal(t, stored, got, "encode")
			decodeCalls(got)
			require.Equal(t, plain, got, "decode")
		})
	}
}

func TestFilterAtTheEdges(t *testing.T) {
	for _, p := range [][]byte{nil, {0xe8}, {0xe8, 1, 2, 3}} {
		got := bytes.Clone(p)
		encodeCalls(got)
		require.Equal(t, p, got, "too short for an instruction")
	}
	// An opcode inside an operand is none, and the last five bytes count.
	p := []byte{0xe8, 0xe8, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0xe9, 0xfe, 0xff, 0xff, 0xff}
	encodeCalls(p)
	require.Equal(t, []byte{0xe8, 0xe8, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0xe9, 8, 0, 0, 0}, p)
}

func TestFilterIsOneToOne(t *testing.T) {
	// Bytes that make calls with small operands, which random ones hardly do.
	likely := rapid.SampledFrom([]byte{0, 0, 0, 1, 0x10, 0xe8, 0xe8, 0xe9, 0xff, 0xff, 0x80})
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SliceOfN(likely, 0, 400).Draw(t, "payload")
		got := bytes.Clone(p)
		encodeCalls(got)
		decodeCalls(got)
		require.Equal(t, p, got)
		decodeCalls(got)
		encodeCalls(got)
		require.Equal(t, p, got)
	})
}
