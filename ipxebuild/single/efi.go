package single

import (
	"bytes"
	"debug/pe"
	_ "embed" // the compiled UEFI programs
	"encoding/binary"
	"fmt"

	"github.com/nestboot/nestboot/boot"
)

//go:embed stub/stub-x86_64.bin
var stubAMD64 string

//go:embed stub/stub-arm64.bin
var stubARM64 string

const (
	sectionAlign = 0x1000 // a page: firmware protects memory page by page
	fileAlign    = 0x200
	peOffset     = 0x40 // no program for DOS, only its header
	codeAddr     = 0x1000
	// optionsWord is the first word of the load options. iPXE skips it, as
	// its own name, and runs what follows as a script.
	optionsWord = "ipxe.efi "
)

type section struct {
	name  string
	data  []byte
	flags uint32
}

// EFI joins our UEFI program for arch, a stock or patched iPXE .efi of the
// same architecture and a script, lines of ASCII behind #!ipxe. The result is
// an EFI application; the same input makes the same bytes.
//
// iPXE runs the script only if it finds no autoexec.ipxe beside the file, so
// whoever does not want that to win renames it inside the binary first.
func EFI(arch boot.Arch, ipxe, script []byte) ([]byte, error) {
	m, err := machine(arch)
	if err != nil {
		return nil, err
	}
	if err := checkProgram(arch, ipxe); err != nil {
		return nil, fmt.Errorf("iPXE for the single .efi file: %w", err)
	}
	if err := checkScript(script); err != nil {
		return nil, err
	}
	code := stubAMD64
	if arch == boot.ARM64 {
		code = stubARM64
	}
	const (
		data  = pe.IMAGE_SCN_CNT_INITIALIZED_DATA | pe.IMAGE_SCN_MEM_READ
		exec  = pe.IMAGE_SCN_CNT_CODE | pe.IMAGE_SCN_MEM_EXECUTE | pe.IMAGE_SCN_MEM_READ
		reloc = data | pe.IMAGE_SCN_MEM_DISCARDABLE
	)
	return writePE(m, []section{
		{".text", []byte(code), exec},
		{".ipxe", ipxe, data},
		{".script", loadOptions(script), data},
		{".reloc", noRelocations(), reloc},
	})
}

// loadOptions is the script as UEFI hands it over: UTF-16LE, NUL-terminated.
func loadOptions(script []byte) []byte {
	out := make([]byte, 0, 2*(len(optionsWord)+len(script)+1))
	for _, c := range []byte(optionsWord + string(script) + "\x00") {
		out = append(out, c, 0)
	}
	return out
}

// noRelocations is a relocation table with one block of two entries that mean
// nothing: an image without a table counts as bound to its address.
func noRelocations() []byte {
	return binary.LittleEndian.AppendUint32([]byte{0, codeAddr >> 8, 0, 0, 12, 0, 0, 0}, 0)
}

// writePE lays the sections out behind PE32+ headers. The first is the code
// and starts with its entry point, the last the relocation table.
func writePE(machine uint16, sections []section) ([]byte, error) {
	headers := up(peOffset+4+binary.Size(pe.FileHeader{})+binary.Size(pe.OptionalHeader64{})+
		len(sections)*binary.Size(pe.SectionHeader32{}), fileAlign)
	addr, offset := codeAddr, headers
	table := make([]pe.SectionHeader32, len(sections))
	for i, s := range sections {
		table[i] = pe.SectionHeader32{
			VirtualSize: uint32(len(s.data)), VirtualAddress: uint32(addr),
			SizeOfRawData: uint32(up(len(s.data), fileAlign)), PointerToRawData: uint32(offset),
			Characteristics: s.flags,
		}
		copy(table[i].Name[:], s.name)
		addr += up(len(s.data), sectionAlign)
		offset += up(len(s.data), fileAlign)
	}
	var b bytes.Buffer
	b.Write(binary.LittleEndian.AppendUint32(append([]byte("MZ"), make([]byte, 0x3a)...), peOffset))
	b.WriteString("PE\x00\x00")
	for _, part := range []any{fileHeader(machine, len(sections)), optionalHeader(table, headers, addr), table} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			return nil, fmt.Errorf("write PE headers: %w", err)
		}
	}
	out := make([]byte, offset)
	copy(out, b.Bytes())
	for i, s := range sections {
		copy(out[table[i].PointerToRawData:], s.data)
	}
	return out, nil
}

func fileHeader(machine uint16, sections int) pe.FileHeader {
	return pe.FileHeader{
		Machine: machine, NumberOfSections: uint16(sections),
		SizeOfOptionalHeader: uint16(binary.Size(pe.OptionalHeader64{})),
		Characteristics:      pe.IMAGE_FILE_EXECUTABLE_IMAGE | pe.IMAGE_FILE_LARGE_ADDRESS_AWARE,
	}
}

// optionalHeader describes an image of the given size in memory. It may say
// that it gets along with memory that is not executable: only .text runs, and
// nothing is written.
func optionalHeader(table []pe.SectionHeader32, headers, image int) pe.OptionalHeader64 {
	h := pe.OptionalHeader64{
		Magic: 0x20b, MajorLinkerVersion: 1, SizeOfCode: table[0].SizeOfRawData,
		AddressOfEntryPoint: codeAddr, BaseOfCode: codeAddr,
		SectionAlignment: sectionAlign, FileAlignment: fileAlign,
		SizeOfImage: uint32(image), SizeOfHeaders: uint32(headers),
		Subsystem:           pe.IMAGE_SUBSYSTEM_EFI_APPLICATION,
		DllCharacteristics:  pe.IMAGE_DLLCHARACTERISTICS_NX_COMPAT,
		NumberOfRvaAndSizes: 16,
	}
	for _, s := range table[1:] {
		h.SizeOfInitializedData += s.SizeOfRawData
	}
	last := table[len(table)-1]
	h.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_BASERELOC] = pe.DataDirectory{VirtualAddress: last.VirtualAddress, Size: last.VirtualSize}
	return h
}
