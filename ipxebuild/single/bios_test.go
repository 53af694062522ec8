package single

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func errorIs(err error) bool { return errors.Is(err, ErrNotSingle) }

func TestBIOSRoundTrip(t *testing.T) {
	for name, kernel := range map[string][]byte{
		"stock": stock(t, "ipxe.lkrn"), "odd": lkrn(7777), "smallest": lkrn(6*512 + 1),
	} {
		t.Run(name, func(t *testing.T) {
			before := bytes.Clone(kernel)
			out, err := BIOS(kernel, []byte(script))
			require.NoError(t, err)
			require.Equal(t, before, kernel, "the input stays as it is")
			again, err := BIOS(kernel, []byte(script))
			require.NoError(t, err)
			require.Equal(t, out, again, "same input, same bytes")
			parts, err := ReadBIOS(out)
			require.NoError(t, err)
			require.Equal(t, BIOSParts{LKRN: kernel, Script: []byte(script)}, parts)
		})
	}
}

// TestBIOSHeader pins what the program and the kernel read.
func TestBIOSHeader(t *testing.T) {
	out, err := BIOS(lkrn(6*512+33), []byte(script))
	require.NoError(t, err)
	setup := len(nbp) + 0x1f0
	golden(t, "header-bios.hex", hex.Dump(out[:48])+"\n"+hex.Dump(out[setup:setup+0x40]))
}

func TestBIOSFitsLowMemory(t *testing.T) {
	const room = lowEnd - loadAddr
	most := room - len(nbp) - 32 // the script takes two paragraphs
	out, err := BIOS(lkrn(most), []byte(script))
	require.NoError(t, err)
	require.Len(t, out, room)
	_, err = BIOS(lkrn(most+1), []byte(script))
	require.ErrorContains(t, err, "use undionly.kpxe or the pxelinux directory")
	stocked, err := BIOS(stock(t, "ipxe.lkrn"), []byte(script))
	require.NoError(t, err)
	require.Less(t, len(stocked), room-20<<10, "room for a repacked iPXE and a long script")
}

func TestBIOSRefuses(t *testing.T) {
	edit := func(at int, bytes ...byte) []byte {
		k := lkrn(5000)
		copy(k[at:], bytes)
		return k
	}
	for name, tt := range map[string]struct {
		kernel []byte
		want   string
	}{
		"nothing":          {nil, "not a Linux-like kernel"},
		"a PXE binary":     {edit(atHdrS, 0), "not a Linux-like kernel"},
		"no boot flag":     {edit(atBootFlag, 0), "not a Linux-like kernel"},
		"old protocol":     {edit(atVersion, 0x02, 0x02), "boot protocol 0x202"},
		"loaded low":       {edit(atLoadFlags, 0), "loaded low"},
		"no setup":         {edit(atSetupSects, 0), "real-mode part has 512"},
		"all setup":        {edit(atSetupSects, 9), "real-mode part has 5120 of 5000"},
		"too much setup":   {func() []byte { k := lkrn(99999); k[atSetupSects] = 64; return k }(), "real-mode part has 33280"},
		"cut short":        {lkrn(5000)[:4980], "cut short"},
		"added to":         {append(lkrn(5000), make([]byte, 20)...), "badly repacked"},
		"low initrd limit": {edit(atInitrdMax, 0xff, 0xff, 0xff, 0x03), "no initrd above 0x3ffffff"},
		"already loaded":   {edit(atRamdiskSize, 1), "already filled in"},
		"already started":  {edit(atLoaderType, 0xff), "already filled in"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := BIOS(tt.kernel, []byte(script))
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestReadBIOSRefuses(t *testing.T) {
	out, err := BIOS(lkrn(5000), []byte(script))
	require.NoError(t, err)
	// edit keeps the checksum right, as an attacker would.
	edit := func(change func(h *header, data []byte)) []byte {
		c := bytes.Clone(out)
		var h header
		_, err := binary.Decode(c, binary.LittleEndian, &h)
		require.NoError(t, err)
		change(&h, c)
		h.Sum = 0
		_, err = binary.Encode(c, binary.LittleEndian, h)
		require.NoError(t, err)
		h.Sum = -sum(c)
		_, err = binary.Encode(c, binary.LittleEndian, h)
		require.NoError(t, err)
		return c
	}
	damaged := bytes.Clone(out)
	damaged[3000] ^= 4
	const misplaced = "where they can't be"
	for name, tt := range map[string]struct {
		data      []byte
		notSingle bool
		want      string
	}{
		"nothing":         {nil, true, "not a network boot program"},
		"a kernel":        {lkrn(5000), true, "not a network boot program"},
		"cut short":       {out[:len(out)-16], false, "cut short"},
		"added to":        {append(bytes.Clone(out), 0), false, "added to"},
		"damaged":         {damaged, false, "checksum"},
		"kernel first":    {edit(func(h *header, _ []byte) { h.Segment = 0 }), false, misplaced},
		"kernel too long": {edit(func(h *header, _ []byte) { h.Kernel.Size = 1 << 31 }), false, misplaced},
		"kernel nowhere":  {edit(func(h *header, _ []byte) { h.Kernel.From = 1<<32 - 1 }), false, misplaced},
		"no kernel":       {edit(func(h *header, _ []byte) { h.Kernel.Size = 0; h.Kernel.From = loadAddr }), false, misplaced},
		"script too long": {edit(func(h *header, _ []byte) { h.Script.Size = 1<<32 - 1 }), false, misplaced},
		"script early":    {edit(func(h *header, _ []byte) { h.Script.From = loadAddr }), false, misplaced},
		"script moved":    {edit(func(h *header, _ []byte) { h.Script.To = 0 }), false, misplaced},
		"another initrd":  {edit(func(h *header, _ []byte) { h.Script.Size-- }), false, "another initrd"},
		"another split":   {edit(func(h *header, _ []byte) { h.Kernel.From++; h.Kernel.Size-- }), false, "wrong place"},
		"no iPXE":         {edit(func(_ *header, d []byte) { d[len(nbp)+atHdrS] = 0 }), false, "iPXE inside"},
		"no script":       {edit(func(_ *header, d []byte) { d[len(d)-32] = 'X' }), false, "want the line #!ipxe"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadBIOS(tt.data)
			require.ErrorContains(t, err, tt.want)
			require.Equal(t, tt.notSingle, errorIs(err), "ErrNotSingle")
		})
	}
}

func FuzzReadBIOS(f *testing.F) {
	out, err := BIOS(lkrn(5000), []byte(script))
	require.NoError(f, err)
	f.Add(out)
	f.Add(out[:48])
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) >= binary.Size(header{}) {
			// With a right magic, size and checksum the fuzzer gets further.
			data = bytes.Clone(data[:min(len(data)&^15, lowEnd)])
			copy(data[4:], magic)
			binary.LittleEndian.PutUint16(data[42:], uint16(len(data)/16))
			binary.LittleEndian.PutUint32(data[44:], binary.LittleEndian.Uint32(data[44:])-sum(data))
		}
		parts, err := ReadBIOS(data)
		if err != nil {
			return
		}
		again, err := BIOS(parts.LKRN, parts.Script)
		if err != nil {
			require.ErrorContains(t, err, "has room for", "all else that was read can be packed")
			return
		}
		back, err := ReadBIOS(again)
		require.NoError(t, err)
		require.Equal(t, parts, back)
	})
}
