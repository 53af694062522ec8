package disk

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// repair makes the GPT's checksums right again after a change to it.
func repair(b []byte) {
	le := binary.LittleEndian
	for _, at := range []int{block, len(b) - block} {
		h := b[at : at+gptHeaderSize]
		if array, err := cut(b, le.Uint64(h[72:])%MaxSize*block, gptArray); err == nil {
			le.PutUint32(h[88:], crc32.ChecksumIEEE(array))
		}
		clear(h[16:20])
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h))
	}
}

// The places that the tests damage.
type places struct {
	isolinux, root, folder int // bytes into the image
	esp, table, fatRoot    int
	efi                    int // the folder EFI
}

func find(t testing.TB, b []byte) places {
	t.Helper()
	le := binary.LittleEndian
	p := places{root: int(le.Uint32(b[sectorPrimary*sector+158:])) * sector}
	p.isolinux = int(le.Uint32(b[sectorCatalog*sector+40:])) * sector
	p.folder = int(le.Uint32(b[p.root+68+2:])) * sector // "BOOT" is the first entry
	p.esp = int(le.Uint32(b[sectorCatalog*sector+104:])) * sector
	v := fat{table: int(le.Uint16(b[p.esp+22:]))}
	p.table = p.esp + block
	p.fatRoot = p.esp + v.rootStart()*block
	p.efi = p.esp + v.dataStart()*block
	return p
}

func TestReadRefuses(t *testing.T) {
	good := image(t, config())
	p := find(t, good)
	put := func(at int, s string) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[at:], s); return b }
	}
	entries := func(at int, s string) func([]byte) []byte { // of both GPTs
		return func(b []byte) []byte {
			copy(b[2*block+at:], s)
			copy(b[len(b)-gptBackup*block+at:], s)
			return b
		}
	}
	for name, tt := range map[string]struct {
		change func([]byte) []byte
		want   string
	}{
		"too large":         {func([]byte) []byte { return append(bytes.Clone(good), make([]byte, MaxSize)...) }, "more than 67108864"},
		"cut short":         {func(b []byte) []byte { return b[:len(b)-1] }, "cut short"},
		"cut at a block":    {func(b []byte) []byte { return b[:len(b)-block] }, "cut short"},
		"cut at 40 KiB":     {func(b []byte) []byte { return b[:40<<10] }, "cut short"},
		"label":             {put(sectorPrimary*sector+40, "\x1b[31m"), "label"},
		"no MBR":            {put(510, "\x00"), "no protective MBR"},
		"plain MBR":         {put(mbrEntry+4, "\x17"), "no protective MBR"},
		"GPT's copy afar":   {put(block+32, "\xff\xff\xff\xff\xff\xff\xff\xff"), "beyond the largest image"},
		"GPT's array afar":  {put(block+72, "\xff\xff\xff\xff\xff\xff\xff\xff"), "beyond the largest image"},
		"GPT's copy gone":   {func(b []byte) []byte { clear(b[len(b)-block:]); return b }, "copy of the GPT: no GPT at block"},
		"two places of ESP": {entries(32, "\x04\x00"), "boot catalog and GPT disagree"},
		"no ESP":            {entries(0, "\x00"), "not an EFI system partition"},
		"ESP beyond":        {entries(40, "\xff\xff\xff\xff"), "not an EFI system partition on this disk"},
		"two GPTs":          {put(2*block+32, "\x04\x00"), "the GPT and its copy differ"},
		"no El Torito":      {put(sectorBoot*sector+7, "X"), "no El Torito boot record"},
		"catalog afar":      {put(sectorBoot*sector+71, "\xff\xff\xff\xff"), "boot catalog"},
		"catalog's sum":     {put(sectorCatalog*sector+28, "\x00\x00"), "boot catalog's head"},
		"catalog's EFI":     {put(sectorCatalog*sector+65, "\x00"), "no BIOS entry followed by an EFI one"},
		"floppy":            {put(sectorCatalog*sector+33, "\x02"), "emulates a floppy"},
		"not isolinux.bin":  {put(sectorCatalog*sector+40, "\x01"), "does not name the tree's isolinux.bin"},
		"isolinux changed":  {put(p.isolinux+1000, "\x00\x00\x00\x00"), "isolinux.bin is damaged"},
		"root afar":         {put(sectorPrimary*sector+156+2, "\xff\xff\xff\xff"), "reach beyond the end"},
		"root large":        {put(sectorPrimary*sector+156+10, "\x00\x00\x04\x00"), "more than 131072"},
		"short record":      {put(p.root+68, "\x05"), "damaged entry"},
		"long identifier":   {put(p.root+68+32, "\xff"), "damaged entry"},
		"ISO name":          {put(p.root+68+33, "../."), "want up to 30"},
		"ISO flags":         {put(p.root+68+25, "\x80"), "has flags 0x80"},
		"ISO loop":          {put(p.folder+68+2, string(good[p.root+2:p.root+6])), "7 folders deep"},
		"ISO file afar":     {put(p.root+68+40+2, "\xff\xff\xff\xff"), "cut short"},
		"FAT":               {put(p.esp+11, "\x00\x08"), "not a FAT volume of ours"},
		"FAT's end":         {put(p.esp+510, "\x00"), "no FAT boot sector"},
		"no cluster":        {put(p.esp+13, "\x00"), "impossible sizes"},
		"FAT's size":        {put(p.esp+19, "\x00\xff"), "impossible sizes"},
		"no tables":         {put(p.esp+22, "\x00\x00"), "tables don't fit"},
		"large tables":      {put(p.esp+22, "\xff\xff"), "impossible sizes"},
		"small clusters":    {put(p.esp+13, "\x01"), "tables don't fit"},
		"in pieces":         {put(p.table+8, "\x00\x00\x00\x00"), "in pieces"},
		"chain's start":     {put(p.fatRoot+fatEntry+26, "\xff\xff"), "leaves the volume"},
		"FAT loop":          {put(p.efi+2*fatEntry+26, string(good[p.fatRoot+fatEntry+26:p.fatRoot+fatEntry+28])), "7 folders deep"},
		"FAT name":          {put(p.fatRoot+fatEntry, "E/I"), "want up to 64"},
		"FAT name twice":    {put(p.fatRoot+2*fatEntry, string(good[p.fatRoot+fatEntry:p.fatRoot+2*fatEntry])), "is there twice"},
	} {
		t.Run(name, func(t *testing.T) {
			b := tt.change(bytes.Clone(good))
			if len(b) == len(good) {
				repair(b)
			}
			_, err := Read(b)
			require.ErrorContains(t, err, tt.want)
			require.NotErrorIs(t, err, ErrNotDisk)
		})
	}
	bad := bytes.Clone(good)
	bad[block+40]++
	_, err := Read(bad)
	require.ErrorContains(t, err, "checksum is wrong")
}

func TestReadTellsOtherFiles(t *testing.T) {
	for name, data := range map[string][]byte{
		"nothing": nil, "script": []byte("#!ipxe\n"), "zeros": make([]byte, 2*mib), "short": image(t, config())[:sectorPrimary*sector+100],
	} {
		_, err := Read(data)
		require.ErrorIs(t, err, ErrNotDisk, name)
	}
}

// TestReadCopiesNothing is what keeps its memory bounded: a thousand files of
// a gigabyte each cost their names.
func TestReadCopiesNothing(t *testing.T) {
	b := image(t, config())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c, err := Read(b)
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
	c.ISO[0].Data[0]++
	again, err := Read(b)
	require.NoError(t, err)
	require.Equal(t, c.ISO[0].Data, again.ISO[0].Data, "files are part of the image")
}

// checkRead is what must hold for any bytes: an error, or names and data
// within the bounds.
func checkRead(t *testing.T, data []byte) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c, err := Read(data)
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(8<<20), "allocation without bounds")
	if err != nil {
		return
	}
	_, err = newTree(c.ISO, isoName)
	require.NoError(t, err)
	_, err = newTree(c.ESP, fatName)
	require.NoError(t, err)
	require.Regexp(t, labelPattern, c.Label)
}

// FuzzRead damages an image in two places, mends the GPT's checksums, which no
// fuzzer guesses, and reads it; and reads the second piece alone.
func FuzzRead(f *testing.F) {
	good := image(f, config())
	p := find(f, good)
	for _, at := range []int{0, block, 2 * block, sectorPrimary * sector, sectorCatalog * sector, p.root, p.folder, p.isolinux, p.esp, p.table, p.fatRoot, p.efi} {
		f.Add(uint32(at), good[at:at+64], uint32(at+64), good[at+64:at+128])
	}
	f.Fuzz(func(t *testing.T, at1 uint32, patch1 []byte, at2 uint32, patch2 []byte) {
		b := bytes.Clone(good)
		copy(b[int(at1)%len(b):], patch1)
		copy(b[int(at2)%len(b):], patch2)
		repair(b)
		checkRead(t, b)
		checkRead(t, patch2)
	})
}

// FuzzReadFAT reads any bytes as a FAT volume.
func FuzzReadFAT(f *testing.F) {
	c := config()
	for _, files := range [][]File{c.ESP[1:], {{Path: "x"}}} {
		v, err := layFAT(files)
		require.NoError(f, err)
		b := make([]byte, v.blocks*block)
		v.write(b, 0, c)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, volume []byte) {
		files, err := readFAT(volume)
		if err != nil {
			return
		}
		_, err = newTree(files, fatName)
		require.NoError(t, err)
	})
}
