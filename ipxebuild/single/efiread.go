package single

import (
	"bytes"
	"debug/pe"
	"errors"
	"fmt"

	"github.com/nestboot/nestboot/boot"
)

// EFIParts is what a file made by EFI is made of.
type EFIParts struct {
	Arch   boot.Arch
	IPXE   []byte // the .efi inside; shares memory with the file
	Script []byte
}

// ReadEFI takes a file apart that EFI has made, this version's or an earlier
// one's. For any other file, other EFI programs among them, the error wraps
// ErrNotSingle.
func ReadEFI(data []byte) (EFIParts, error) {
	f, arch, err := readProgram(data)
	if err != nil {
		return EFIParts{}, fmt.Errorf("%w: %w", ErrNotSingle, err)
	}
	ipxe, script := f.Section(".ipxe"), f.Section(".script")
	if ipxe == nil || script == nil {
		return EFIParts{}, fmt.Errorf("%w: EFI program without a section .ipxe or .script", ErrNotSingle)
	}
	p := EFIParts{Arch: arch}
	if p.IPXE, err = contents(data, ipxe); err != nil {
		return EFIParts{}, err
	}
	if err := checkProgram(arch, p.IPXE); err != nil {
		return EFIParts{}, fmt.Errorf("iPXE inside: %w", err)
	}
	options, err := contents(data, script)
	if err != nil {
		return EFIParts{}, err
	}
	if p.Script, err = readOptions(options); err != nil {
		return EFIParts{}, err
	}
	return p, nil
}

// contents is a section without the padding behind it. readProgram has seen
// that the file holds the whole section.
func contents(data []byte, s *pe.Section) ([]byte, error) {
	if s.VirtualSize > s.Size {
		return nil, fmt.Errorf("section %.8q has %d bytes of %d", s.Name, s.Size, s.VirtualSize)
	}
	return data[s.Offset : s.Offset+s.VirtualSize : s.Offset+s.VirtualSize], nil
}

// readOptions is the script in load options.
func readOptions(options []byte) ([]byte, error) {
	if len(options) > 2*(len(optionsWord)+maxScript+1) {
		return nil, fmt.Errorf("load options have %d bytes, too many for a script", len(options))
	}
	text := make([]byte, 0, len(options)/2)
	for i := 0; i+1 < len(options); i += 2 {
		if options[i+1] != 0 {
			return nil, errors.New("load options are not ASCII in UTF-16LE")
		}
		text = append(text, options[i])
	}
	script, ok := bytes.CutPrefix(text, []byte(optionsWord))
	script, ended := bytes.CutSuffix(script, []byte{0})
	if !ok || !ended || len(options)%2 != 0 {
		return nil, fmt.Errorf("load options begin with %.20q: want %q, a script and a NUL", text, optionsWord)
	}
	return script, checkScript(script)
}
