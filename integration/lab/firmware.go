package lab

import (
	"fmt"
	"os"
	"path/filepath"
)

// Firmware is what a machine runs before anything of ours.
type Firmware int

// EDK2 goes on to HTTP Boot where PXE fails and DHCP names a URL (that can't be switched off), and ends in its shell.
const (
	UEFI    Firmware = iota // EDK2 of 2022 on x86-64: Debian's OVMF; its TLS knows RSA key exchange only, and no elliptic curves
	BIOS                    // SeaBIOS, as QEMU brings it; for PXE the ROM of QEMU's network card, which is an iPXE of 2019
	ARM64                   // EDK2 on arm64: Debian's AAVMF, several times slower than x86-64 on an x86-64 host
	NewUEFI                 // EDK2 of 2026 on x86-64, whose TLS has ECDHE; Debian 13's of 2025 has not
)

func (f Firmware) program() string {
	if f == ARM64 {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

func (f Firmware) board() []string {
	if f == ARM64 {
		return []string{"-machine", "virt", "-cpu", "cortex-a57"}
	}
	// graphics=off: SeaBIOS copies its screen, and that of ROMs and of iPXE, to the serial line.
	return []string{"-machine", "q35,graphics=off"}
}

// firmware returns QEMU's arguments for the machine's firmware, with variables as they leave the factory.
func (l *Lab) firmware(m Machine) ([]string, error) {
	switch m.Firmware {
	case UEFI, NewUEFI:
		code := "bookworm/usr/share/OVMF/OVMF_CODE_4M.fd"
		if m.Firmware == NewUEFI {
			code = "forky/usr/share/OVMF/OVMF_CODE_4M.fd"
		}
		flash, err := l.flash(m, code, "OVMF_VARS_4M.fd")
		return append(append(flash, m.skip()...), m.enrolled()...), err
	case ARM64:
		return l.flash(m, "bookworm/usr/share/AAVMF/AAVMF_CODE.fd", "AAVMF_VARS.fd")
	case BIOS:
	}
	return nil, nil
}

// enrolled hands over the authorities that the firmware trusts, as an operator enrols them in its setup (read by EDK2's
// OvmfPkg from QEMU's fw_cfg into the variable TlsCaCertificate).
func (m Machine) enrolled() []string {
	if m.Authorities == "" {
		return nil
	}
	return []string{"-fw_cfg", "name=etc/edk2/https/cacerts,file=" + m.Authorities}
}

// flash returns the arguments for EDK2's two chips: the code, and a copy of the variables that lie beside it.
func (l *Lab) flash(m Machine, code, vars string) ([]string, error) {
	code = filepath.Join(l.options.Materials.Dir, code)
	factory, err := os.ReadFile(filepath.Join(filepath.Dir(code), vars))
	if err != nil {
		return nil, fmt.Errorf("read firmware variables: %w", err)
	}
	own := filepath.Join(l.options.Dir, m.Name+".vars")
	if err := os.WriteFile(own, factory, 0o600); err != nil {
		return nil, fmt.Errorf("write firmware variables: %w", err)
	}
	return []string{
		"-drive", "if=pflash,format=raw,readonly=on,file=" + code,
		"-drive", "if=pflash,format=raw,file=" + own,
	}, nil
}

// skip switches off the ways to boot that would only cost time (read by EDK2 2022.11's OvmfPkg from QEMU's fw_cfg).
func (m Machine) skip() []string {
	off := []string{"IPv6Support", "IPv6PXESupport"}
	if m.Boot == HTTP {
		off = append(off, "IPv4PXESupport")
	}
	var args []string
	for _, name := range off {
		args = append(args, "-fw_cfg", "name=opt/org.tianocore/"+name+",string=n")
	}
	return args
}

// rom returns the properties of the network card that say what it has in its ROM: nothing, for the machine's firmware
// is what is wanted, except where that is a BIOS, which knows no network. The ROM is for the card's modern device id.
func (l *Lab) rom(m Machine) string {
	if m.Firmware == BIOS && m.Boot == PXE {
		return ",bootindex=0,disable-legacy=on,romfile=" + filepath.Join(l.options.Materials.root(), "usr/lib/ipxe/qemu/pxe-virtio.rom")
	}
	return ",romfile="
}
