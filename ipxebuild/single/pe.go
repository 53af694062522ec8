package single

import (
	"bytes"
	"debug/pe"
	"errors"
	"fmt"

	"github.com/nestboot/nestboot/boot"
)

// machine is the PE machine type of an architecture that EFI makes files for.
func machine(arch boot.Arch) (uint16, error) {
	switch arch {
	case boot.AMD64:
		return pe.IMAGE_FILE_MACHINE_AMD64, nil
	case boot.ARM64:
		return pe.IMAGE_FILE_MACHINE_ARM64, nil
	}
	return 0, fmt.Errorf("no EFI program for architecture %q: want %s or %s", arch, boot.AMD64, boot.ARM64)
}

// readProgram reads the headers of a 64-bit EFI application and checks that
// the file holds all of its sections.
func readProgram(data []byte) (*pe.File, boot.Arch, error) {
	if len(data) > maxFile {
		return nil, "", fmt.Errorf("%d bytes are more than any EFI program of iPXE has", len(data))
	}
	f, err := pe.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, "", fmt.Errorf("read PE headers: %w", err)
	}
	h, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok || h.Subsystem != pe.IMAGE_SUBSYSTEM_EFI_APPLICATION {
		return nil, "", errors.New("not a 64-bit EFI application")
	}
	for _, s := range f.Sections {
		if end := uint64(s.Offset) + uint64(s.Size); s.Size != 0 && end > uint64(len(data)) {
			return nil, "", fmt.Errorf("section %.8q ends at %d of %d bytes: the file is cut short", s.Name, end, len(data))
		}
	}
	for _, arch := range []boot.Arch{boot.AMD64, boot.ARM64} {
		if m, err := machine(arch); err == nil && m == f.Machine {
			return f, arch, nil
		}
	}
	return nil, "", fmt.Errorf("machine type %#x is neither x86-64 nor arm64", f.Machine)
}

// checkProgram accepts an EFI application for arch that nobody has signed:
// inside another file the signature would say nothing, and firmware that wants
// one refuses the file around it first.
func checkProgram(arch boot.Arch, ipxe []byte) error {
	f, got, err := readProgram(ipxe)
	if err != nil {
		return err
	}
	if got != arch {
		return fmt.Errorf("it is for %s, not for %s", got, arch)
	}
	h, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if ok && h.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY].Size != 0 {
		return errors.New("it is signed: use it beside its shim and script, as a signed set does")
	}
	return nil
}
