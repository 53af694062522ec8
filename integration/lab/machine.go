package lab

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Firmware is the way in which a machine's firmware boots from the network.
type Firmware int

// Both are OVMF, Debian's build of EDK2. It goes on to HTTP Boot where PXE fails and DHCP names a URL (that can't be
// switched off), and ends in its shell.
const (
	PXE  Firmware = iota // DHCP, then TFTP
	HTTP                 // UEFI HTTP Boot: DHCP, then HTTP
)

// Machine is a virtual bare-metal machine, x86-64, with one network card and no disk.
type Machine struct {
	Name   string // of its files in Options.Dir: no slash, unique in the lab
	MAC    string // lower case, colons
	UUID   string // of the system, as SMBIOS shows it; required
	Serial string // of the system, no comma; none when empty
	Boot   Firmware
	Memory int       // MiB; 1024 when 0
	Clock  time.Time // what its hardware clock says at power-on; now when zero
}

// Boot powers a machine on. What it prints on its serial line, firmware, iPXE, kernel and guest alike, is the output
// of the Proc, with times since power-on, in Options.Dir/<name>.log. The Proc ends when the machine powers itself off,
// reboots or panics (there is no second boot), and when ctx ends.
func (l *Lab) Boot(ctx context.Context, m Machine) (*Proc, error) {
	firmware, err := l.firmware(m)
	if err != nil {
		return nil, fmt.Errorf("boot %s: %w", m.Name, err)
	}
	tap, err := l.addTap(ctx)
	if err != nil {
		return nil, fmt.Errorf("boot %s: %w", m.Name, err)
	}
	return l.Start(ctx, m.Name, "qemu-system-x86_64", append(firmware, l.hardware(m, tap)...)...)
}

// firmware returns QEMU's arguments for OVMF with variables as they leave the factory, and with the ways to boot
// switched off that would only cost time (read by EDK2 2022.11's OvmfPkg from QEMU's fw_cfg).
func (l *Lab) firmware(m Machine) ([]string, error) {
	code, err := l.options.Materials.one("usr/share/OVMF/OVMF_CODE_4M.fd")
	if err != nil {
		return nil, err
	}
	factory, err := os.ReadFile(filepath.Join(filepath.Dir(code), "OVMF_VARS_4M.fd"))
	if err != nil {
		return nil, fmt.Errorf("read firmware variables: %w", err)
	}
	vars := filepath.Join(l.options.Dir, m.Name+".vars")
	if err := os.WriteFile(vars, factory, 0o600); err != nil {
		return nil, fmt.Errorf("write firmware variables: %w", err)
	}
	args := []string{
		"-drive", "if=pflash,format=raw,readonly=on,file=" + code,
		"-drive", "if=pflash,format=raw,file=" + vars,
	}
	off := []string{"IPv6Support", "IPv6PXESupport"}
	if m.Boot == HTTP {
		off = append(off, "IPv4PXESupport")
	}
	for _, name := range off {
		args = append(args, "-fw_cfg", "name=opt/org.tianocore/"+name+",string=n")
	}
	return args, nil
}

func (l *Lab) hardware(m Machine, tap string) []string {
	args := []string{
		"-name", m.Name, "-machine", "q35,graphics=off", "-accel", "tcg", "-m", strconv.Itoa(cmp.Or(m.Memory, 1024)),
		"-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-uuid", m.UUID, "-smbios", "type=1,serial=" + m.Serial,
		// OVMF since 2024 wants a source of randomness before it uses the network.
		"-object", "rng-random,id=r0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=r0",
		// Without vnet_hdr: QEMU before 8.0 writes that header into captures.
		"-netdev", "tap,id=n0,vnet_hdr=off,script=no,downscript=no,ifname=" + tap,
		// No option ROM: it would be QEMU's own iPXE, and the machine's firmware is what is wanted.
		"-device", "virtio-net-pci,netdev=n0,romfile=,mac=" + m.MAC,
	}
	if !m.Clock.IsZero() {
		args = append(args, "-rtc", "base="+m.Clock.UTC().Format("2006-01-02T15:04:05"))
	}
	if l.options.Capture {
		args = append(args, "-object", "filter-dump,id=d0,netdev=n0,file="+filepath.Join(l.options.Dir, m.Name+".pcap"))
	}
	return args
}
