package lab

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"time"
)

// Machine is a virtual bare-metal machine with one network card.
type Machine struct {
	Name     string // of its files in Options.Dir: no slash, unique in the lab
	MAC      string // lower case, colons
	UUID     string // of the system, as SMBIOS shows it; required
	Serial   string // of the system, no comma; none when empty
	Firmware Firmware
	Boot     Source
	Media    string    // file that is the CD, the stick or the disk; it is not written to
	Memory   int       // MiB; 1024 when 0
	Clock    time.Time // what its hardware clock says at power-on; now when zero

	// Authorities is a file with those that UEFI firmware trusts for HTTPS Boot: EFI signature lists (UEFI 2.10, 32.4.1).
	// None when empty, and then the firmware loads nothing over HTTPS.
	Authorities string
}

// Source is where a machine's firmware looks for something to boot. It looks nowhere else.
type Source int

// A machine that boots from the network has no disk.
const (
	PXE  Source = iota // DHCP, then TFTP
	HTTP               // UEFI HTTP Boot: DHCP, then HTTP
	CD                 // a drive on a SATA controller
	USB                // a stick on an xHCI controller
	Disk               // a disk on a SATA controller
)

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
	args := append(append(firmware, l.hardware(m, tap)...), m.media()...)
	return l.Start(ctx, m.Name, m.Firmware.program(), args...)
}

func (l *Lab) hardware(m Machine, tap string) []string {
	args := []string{
		"-name", m.Name, "-accel", "tcg", "-m", strconv.Itoa(cmp.Or(m.Memory, 1024)),
		"-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-uuid", m.UUID, "-smbios", "type=1,serial=" + m.Serial,
		// EDK2 since 2024 wants a source of randomness before it uses the network.
		"-object", "rng-random,id=r0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=r0",
		// Without vnet_hdr: QEMU before 8.0 writes that header into captures.
		"-netdev", "tap,id=n0,vnet_hdr=off,script=no,downscript=no,ifname=" + tap,
		"-device", "virtio-net-pci,netdev=n0,mac=" + m.MAC + l.rom(m),
	}
	args = append(args, m.Firmware.board()...)
	if !m.Clock.IsZero() {
		args = append(args, "-rtc", "base="+m.Clock.UTC().Format("2006-01-02T15:04:05"))
	}
	if l.options.Capture {
		args = append(args, "-object", "filter-dump,id=d0,netdev=n0,file="+filepath.Join(l.options.Dir, m.Name+".pcap"))
	}
	return args
}

// media returns QEMU's arguments for what the machine boots from beside its network card.
func (m Machine) media() []string {
	// Two machines may boot from one file: what they write is thrown away.
	drive := []string{"-drive", "if=none,id=m0,format=raw,snapshot=on,file=" + m.Media, "-device"}
	switch m.Boot {
	case CD:
		return append(drive, "ide-cd,drive=m0,bootindex=0")
	case USB:
		return append(drive, "qemu-xhci", "-device", "usb-storage,drive=m0,bootindex=0")
	case Disk:
		return append(drive, "ide-hd,drive=m0,bootindex=0")
	case PXE, HTTP:
	}
	return nil
}
