package bios

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReadAndRepack(t *testing.T) {
	for _, kind := range []Kind{KPXE, LKRN} {
		payload := program(20_000)
		m, err := Read(small(t, kind, payload))
		require.NoError(t, err)
		require.Equal(t, kind, m.Kind())
		require.Equal(t, payload, m.Payload())
		m.Payload()[0]++
		require.Equal(t, payload, m.Payload(), "callers get a copy")

		changed := bytes.Clone(payload)
		for i := range 4096 {
			changed[5000+i] = byte(rand.New(rand.NewPCG(uint64(i), 0)).Uint32())
		}
		out, err := m.Repack(changed)
		require.NoError(t, err)
		again, err := Read(out)
		require.NoError(t, err)
		require.Equal(t, changed, again.Payload())
		repeated, err := m.Repack(changed)
		require.NoError(t, err)
		require.Equal(t, out, repeated, "same input, same bytes")
		if kind == KPXE {
			require.Equal(t, uint16((len(out)+15)/16), binary.LittleEndian.Uint16(out[sizeAt:]))
		} else {
			require.Equal(t, uint32((len(out)-0xc00+15)/16), binary.LittleEndian.Uint32(out[0x1f4:]))
		}
	}
}

func TestReadRefuses(t *testing.T) {
	payload := program(5000)
	last := block(t, payload)
	kpxe, lkrn := small(t, KPXE, payload), small(t, LKRN, payload)
	filler := block(t, []byte("the first block"))
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"empty":                  {nil, "neither as a PXE boot program nor as a Linux boot image"},
		"text":                   {[]byte("#!ipxe\n"), "neither as a PXE boot program"},
		"UEFI program":           {append([]byte("MZ"), kpxe...), "UEFI or DOS program"},
		"another PXE program":    {header(KPXE), "no compressed iPXE"},
		"another kernel":         {header(LKRN), "no compressed iPXE"},
		"far too large":          {append(bytes.Clone(kpxe), make([]byte, maxFile)...), "more than the 4194304 bytes"},
		"cut short":              {kpxe[:len(kpxe)-1], "cut short, appended to or damaged"},
		"appended to":            {append(bytes.Clone(kpxe), 0), "cut short, appended to or damaged"},
		"last block damaged":     {flipped(kpxe, len(kpxe)-100), "cut short, appended to or damaged"},
		"wrong size":             {flipped(kpxe, sizeAt), "at 0 places instead of one"},
		"two sizes":              {twoSizes(kpxe), "at 2 places instead of one"},
		"wrong syssize":          {flipped(lkrn, 0x1f4), "Linux header"},
		"more setup than file":   {moreSetup(lkrn), "Linux header"},
		"two last blocks":        {build(KPXE, header(KPXE), filler, nested(last)), "2 blocks end where the file ends"},
		"many last blocks":       {manyLengths(), "more than 8 places look like its last block"},
		"block too far in":       {build(KPXE, append(header(KPXE), make([]byte, maxPrefix)...), last), "no compressed iPXE"},
		"no LZMA":                {build(KPXE, header(KPXE), sealed([]byte("\xffno LZMA at all"))), "unpack its last block: "},
		"LZMA cut short":         {build(KPXE, header(KPXE), sealed(last[lengthSize:len(last)/2])), "unpack its last block: read LZMA"},
		"more behind LZMA's end": {build(KPXE, header(KPXE), sealed(append(bytes.Clone(last[lengthSize:len(last)-crcSize]), 0))), "1 bytes follow the end"},
		"unpacks to too much":    {build(KPXE, header(KPXE), block(t, make([]byte, maxPayload+1))), "unpacks to more than 4194304 bytes"},
		"unpacks to 4 bytes":     {build(KPXE, header(KPXE), block(t, []byte("four"))), "unpacks to 4 bytes, no program"},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			n := allocated(func() { _, err = Read(tt.data) })
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, "as Debian's package ipxe")
			require.Less(t, n, uint64(64<<20))
		})
	}
}

// TestLargest keeps the bound on memory for what Read takes, too.
func TestLargest(t *testing.T) {
	data := small(t, KPXE, make([]byte, maxPayload))
	var m *Image
	var err error
	n := allocated(func() { m, err = Read(data) })
	require.Less(t, n, uint64(64<<20))
	require.NoError(t, err)
	payload := m.Payload()
	n = allocated(func() { _, err = m.Repack(payload) })
	require.Less(t, n, uint64(64<<20))
	require.NoError(t, err)
}

func TestRepackRefuses(t *testing.T) {
	m, err := Read(small(t, KPXE, program(5000)))
	require.NoError(t, err)
	_, err = m.Repack(program(5001))
	require.ErrorContains(t, err, "has 5001 bytes instead of 5000")

	// 16 bits count less than 1 MiB. Packing so much takes seconds.
	f := sizeField{offset: sizeAt, width: 2}
	require.NoError(t, f.set(make([]byte, 1<<20-16)))
	require.ErrorContains(t, f.set(make([]byte, 1<<20-15)), "too large for its 16-bit size field")
}

// TestRepackTriesAnotherSize has the new size stand elsewhere in the header
// already. The result must have another one, or nobody could read it.
func TestRepackTriesAnotherSize(t *testing.T) {
	unit := make([]byte, 20_000)
	_, err := rand.NewChaCha8([32]byte{}).Read(unit)
	require.NoError(t, err)
	changed := bytes.Repeat(unit, 3)
	first := block(t, []byte("the first block"))
	zeros := block(t, make([]byte, len(changed)))

	m, err := Read(build(KPXE, header(KPXE), first, zeros))
	require.NoError(t, err)
	plain, err := m.Repack(changed)
	require.NoError(t, err)

	busy := header(KPXE)
	copy(busy[0x800:], plain[sizeAt:sizeAt+2])
	m, err = Read(build(KPXE, busy, first, zeros))
	require.NoError(t, err)
	out, err := m.Repack(changed)
	require.NoError(t, err)
	require.NotEqual(t, len(plain), len(out))
	again, err := Read(out)
	require.NoError(t, err)
	require.Equal(t, changed, again.Payload())

	copy(busy[0x900:], out[sizeAt:sizeAt+2])
	m, err = Read(build(KPXE, busy, first, zeros))
	require.NoError(t, err)
	_, err = m.Repack(changed)
	require.ErrorContains(t, err, "at 2 places instead of one")
}

func flipped(data []byte, at int) []byte {
	out := bytes.Clone(data)
	out[at] ^= 0x55
	return out
}

func twoSizes(kpxe []byte) []byte {
	out := bytes.Clone(kpxe)
	copy(out[0x800:], out[sizeAt:sizeAt+2])
	return out
}

// moreSetup has a size that would fit if it could be negative.
func moreSetup(lkrn []byte) []byte {
	out := bytes.Clone(lkrn)
	out[0x1f1] = 0xff
	binary.LittleEndian.PutUint32(out[0x1f4:], uint32((len(out)-0x100*512+15)/16))
	return out
}

// manyLengths is a file where every possible place claims a block up to the
// end.
func manyLengths() []byte {
	out := append(header(KPXE), make([]byte, 4096)...)
	for off := blockAlign; off+lengthSize+minBody < len(out); off += blockAlign {
		binary.LittleEndian.PutUint32(out[off:], uint32(len(out)-off-lengthSize))
	}
	return out
}

// nested is a valid block that ends with the valid block last: 12 bytes make
// the CRC of the outer one arrive at its initial state where last's CRC
// begins.
func nested(last []byte) []byte {
	const initial = 0xffffffff
	state := uint32(initial)
	for i := lengthSize - 1; i >= 0; i-- {
		state = crcBack(state, last[i])
	}
	for range 4 {
		state = crcBack(state, 0)
	}
	out := binary.LittleEndian.AppendUint32(nil, uint32(12+len(last)))
	// The outer body: eight bytes of padding before the four that steer.
	pad := make([]byte, 8)
	before := ^crc32.ChecksumIEEE(pad)
	out = append(out, pad...)
	out = binary.LittleEndian.AppendUint32(out, before^state)
	return append(out, last...)
}

// crcBack is the CRC's state before it took b in and became state.
func crcBack(state uint32, b byte) uint32 {
	for i, entry := range crc32.IEEETable {
		if entry>>24 == state>>24 {
			return (state^entry)<<8 | uint32(byte(i)^b)
		}
	}
	return 0
}
