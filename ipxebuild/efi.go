package ipxebuild

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/nestboot/nestboot/boot"
)

// readEFI reads a PE file: iPXE, a signed iPXE or a shim.
func (b *Base) readEFI() error {
	p, err := readPE(b.Data)
	if err != nil {
		return fmt.Errorf("is not a UEFI program (%w)", err)
	}
	b.Arch = p.arch
	if want := map[string]boot.Arch{nameAMD64: boot.AMD64, nameARM64: boot.ARM64, nameSNP: boot.AMD64}[b.Name]; want != "" && want != p.arch {
		return fmt.Errorf("is a program for %s by its content", p.arch)
	}
	if b.Kind == KindShim {
		return b.readShim(p)
	}
	b.Version = sbatVersion(b.Data)
	if b.Version == "" {
		b.Version = plainVersion(b.Data)
	}
	if p.signed {
		b.Kind = KindSigned
		return b.needVersion()
	}
	if err := b.readIPXE(b.Data); err != nil {
		return err
	}
	if n := len(scriptNames(b.Data)); n == 0 {
		return fmt.Errorf("does not hold the name %s, under which it looks for a script", ScriptName)
	}
	return b.needVersion()
}

// readShim finds out what a shim starts. iPXE's own is built to start
// ipxe.efi, everybody else's grubx64.efi (seen in Debian's shim-signed).
func (b *Base) readShim(p peFile) error {
	if !p.signed || p.arch != boot.AMD64 {
		return errors.New("is not a signed shim for x86-64")
	}
	for _, next := range []string{nameEFI, "grubx64.efi"} {
		if bytes.Contains(b.Data, utf16("\\"+next+"\x00")) || bytes.Contains(b.Data, utf16("\x00"+next+"\x00")) {
			b.partner = next
			return nil
		}
	}
	return errors.New("is not a shim that starts ipxe.efi or grubx64.efi")
}

// utf16 is ASCII as UEFI programs hold it.
func utf16(s string) []byte {
	out := make([]byte, 0, 2*len(s))
	for i := range len(s) {
		out = append(out, s[i], 0)
	}
	return out
}

// peFile is what is looked at of a PE file.
type peFile struct {
	arch     boot.Arch
	signed   bool
	base     uint64 // address that it is linked to
	sections []*pe.Section
}

// readPE reads the headers of a 64-bit EFI application and checks that the
// file holds all of its sections.
func readPE(data []byte) (peFile, error) {
	f, err := pe.NewFile(bytes.NewReader(data))
	if err != nil {
		return peFile{}, fmt.Errorf("read PE header: %w", err)
	}
	for _, s := range f.Sections {
		if end := uint64(s.Offset) + uint64(s.Size); end > uint64(len(data)) {
			return peFile{}, fmt.Errorf("section %q ends at %d of %d bytes: the file is cut short", s.Name, end, len(data))
		}
	}
	h, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok || h.Subsystem != pe.IMAGE_SUBSYSTEM_EFI_APPLICATION {
		return peFile{}, errors.New("not a 64-bit EFI application")
	}
	p := peFile{base: h.ImageBase, sections: f.Sections}
	certs := h.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY]
	p.signed = h.NumberOfRvaAndSizes > pe.IMAGE_DIRECTORY_ENTRY_SECURITY && certs.Size > 0
	if end := uint64(certs.VirtualAddress) + uint64(certs.Size); p.signed && end > uint64(len(data)) {
		return peFile{}, fmt.Errorf("its signature ends at %d of %d bytes: the file is cut short", end, len(data))
	}
	switch f.Machine {
	case pe.IMAGE_FILE_MACHINE_AMD64:
		p.arch = boot.AMD64
	case pe.IMAGE_FILE_MACHINE_ARM64:
		p.arch = boot.ARM64
	default:
		return peFile{}, fmt.Errorf("machine type %#x is neither x86-64 nor arm64", f.Machine)
	}
	return p, nil
}

// address is where the byte at a file offset lies in memory.
func (p peFile) address(offset int) (uint64, bool) {
	for _, s := range p.sections {
		if offset >= int(s.Offset) && offset < int(s.Offset)+int(s.Size) {
			return p.base + uint64(s.VirtualAddress) + uint64(offset) - uint64(s.Offset), true
		}
	}
	return 0, false
}

// pointer is an address as machine code of the file holds it.
func (p peFile) pointer(offset int) []byte {
	a, ok := p.address(offset)
	if !ok {
		return nil
	}
	return binary.LittleEndian.AppendUint64(nil, a)
}

// scriptNames are the offsets of ScriptName in an iPXE binary, which holds it
// in "file:autoexec.ipxe" and "file:/autoexec.ipxe" (1.21.1 and 2.0.0).
func scriptNames(data []byte) []int {
	var out []int
	for _, prefix := range []string{"file:", "file:/"} {
		if i := bytes.Index(data, []byte(prefix+ScriptName+"\x00")); i >= 0 {
			out = append(out, i+len(prefix))
		}
	}
	return out
}

// rename makes a UEFI binary, in place, ask for its script under another name
// of the same length.
func rename(data []byte, name string) {
	for _, i := range scriptNames(data) {
		copy(data[i:i+len(ScriptName)], name)
	}
}
