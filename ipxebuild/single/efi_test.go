package single

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"encoding/hex"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
)

func TestEFIRoundTrip(t *testing.T) {
	for arch, a := range arches {
		for _, name := range a.stock {
			t.Run(name, func(t *testing.T) {
				ipxe := stock(t, name)
				before := bytes.Clone(ipxe)
				out, err := EFI(arch, ipxe, []byte(script))
				require.NoError(t, err)
				require.Equal(t, before, ipxe, "the input stays as it is")
				again, err := EFI(arch, ipxe, []byte(script))
				require.NoError(t, err)
				require.Equal(t, out, again, "same input, same bytes")
				parts, err := ReadEFI(out)
				require.NoError(t, err)
				require.Equal(t, EFIParts{Arch: arch, IPXE: ipxe, Script: []byte(script)}, parts)
				_, err = ReadEFI(ipxe)
				require.ErrorIs(t, err, ErrNotSingle, "stock iPXE is no single file")
			})
		}
	}
}

// TestEFIHeaders pins what firmware reads, byte by byte, and has the
// standard library's reader agree.
func TestEFIHeaders(t *testing.T) {
	for arch, a := range arches {
		t.Run(string(arch), func(t *testing.T) {
			out, err := EFI(arch, program(t, a.machine, false), []byte(script))
			require.NoError(t, err)
			golden(t, "headers-"+string(arch)+".hex", hex.Dump(out[:0x200]))

			f, err := pe.NewFile(bytes.NewReader(out))
			require.NoError(t, err)
			h, ok := f.OptionalHeader.(*pe.OptionalHeader64)
			require.True(t, ok)
			require.Equal(t, f.Section(".text").VirtualAddress, h.AddressOfEntryPoint)
			require.Zero(t, len(out)%fileAlign)
			end := uint32(codeAddr)
			for _, s := range f.Sections {
				require.Equal(t, end, s.VirtualAddress, "%s follows without a gap", s.Name)
				require.Zero(t, s.VirtualAddress%sectionAlign)
				require.Zero(t, s.Offset%fileAlign)
				require.Zero(t, s.Characteristics&pe.IMAGE_SCN_MEM_WRITE, "%s can't be written", s.Name)
				require.Equal(t, s.Name == ".text", s.Characteristics&pe.IMAGE_SCN_MEM_EXECUTE != 0, "only code runs")
				end += uint32(up(int(s.VirtualSize), sectionAlign))
			}
			require.Equal(t, end, h.SizeOfImage)
		})
	}
}

func TestEFIRefuses(t *testing.T) {
	good := amd64(t)
	arm := program(t, pe.IMAGE_FILE_MACHINE_ARM64, false)
	for name, tt := range map[string]struct {
		arch boot.Arch
		ipxe []byte
		want string
	}{
		"unknown architecture": {"riscv64", good, `architecture "riscv64"`},
		"not a program":        {boot.AMD64, []byte(script), "read PE headers"},
		"nothing":              {boot.AMD64, nil, "read PE headers"},
		"other architecture":   {boot.AMD64, arm, "for arm64, not for x86_64"},
		"other machine":        {boot.AMD64, program(t, pe.IMAGE_FILE_MACHINE_I386, false), "neither x86-64 nor arm64"},
		"cut short":            {boot.AMD64, good[:len(good)-1], "cut short"},
		"signed":               {boot.AMD64, program(t, pe.IMAGE_FILE_MACHINE_AMD64, true), "it is signed"},
		"too large":            {boot.AMD64, make([]byte, maxFile+1), "more than any EFI program"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := EFI(tt.arch, tt.ipxe, []byte(script))
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestReadEFIRefuses(t *testing.T) {
	out, err := EFI(boot.AMD64, amd64(t), []byte(script))
	require.NoError(t, err)
	options := bytes.Index(out, []byte("i\x00p\x00x\x00e\x00"))
	inner := 2 + bytes.Index(out[2:], []byte("MZ"))
	edit := func(at int, text string) []byte {
		c := bytes.Clone(out)
		copy(c[at:], text)
		return c
	}
	for name, tt := range map[string]struct {
		data      []byte
		notSingle bool
		want      string
	}{
		"nothing":          {nil, true, "read PE headers"},
		"another program":  {amd64(t), true, "without a section .ipxe"},
		"cut short":        {out[:len(out)-1], true, "cut short"},
		"another inside":   {edit(inner, "ZM"), false, "iPXE inside"},
		"options not ours": {edit(options, "X"), false, "load options begin with"},
		"not ASCII":        {edit(options+1, "X"), false, "not ASCII"},
		"not a script":     {edit(options+2*len(optionsWord), "X"), false, "want the line #!ipxe"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadEFI(tt.data)
			require.ErrorContains(t, err, tt.want)
			require.Equal(t, tt.notSingle, errorIs(err), "ErrNotSingle")
		})
	}
}

// TestReadEFIMemory reads the worst that the headers can promise: a file full
// of symbols, which the standard library's reader unpacks.
func TestReadEFIMemory(t *testing.T) {
	data := append(amd64(t), make([]byte, maxFile)...)[:maxFile]
	const file, symbol = peOffset + 4, 18
	binary.LittleEndian.PutUint32(data[file+8:], 0x1000)
	binary.LittleEndian.PutUint32(data[file+12:], (maxFile-0x1000-4)/symbol)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := ReadEFI(data)
	runtime.ReadMemStats(&after)
	require.ErrorIs(t, err, ErrNotSingle)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20))
	t.Logf("%d KiB", (after.TotalAlloc-before.TotalAlloc)>>10)
}

func FuzzReadEFI(f *testing.F) {
	for arch, a := range arches {
		out, err := EFI(arch, program(f, a.machine, false), []byte(script))
		require.NoError(f, err)
		f.Add(out)
		f.Add(out[:0x400])
	}
	f.Add(program(f, pe.IMAGE_FILE_MACHINE_AMD64, true))
	f.Fuzz(func(t *testing.T, data []byte) {
		parts, err := ReadEFI(data)
		if err != nil {
			return
		}
		again, err := EFI(parts.Arch, parts.IPXE, parts.Script)
		require.NoError(t, err, "what was read can be packed")
		back, err := ReadEFI(again)
		require.NoError(t, err)
		require.Equal(t, parts, back)
	})
}
