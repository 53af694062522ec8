package lab

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// guestInit is what the guest runs instead of an operating system.
//
//go:embed guest/init.sh
var guestInit []byte

// GuestArgs are the kernel arguments that the guest's image needs: messages on the serial line; a panic ends the machine;
// and a host too busy for a few timer ticks is no broken timer. Without the last, Debian's 6.1 panics in about one of
// 20 boots under TCG ("IO-APIC + timer doesn't work"), and in one of 5 on 2 cores with a load of 15 (4 of 21; 0 of 18 with it).
const GuestArgs = "console=ttyS0 panic=-1 no_timer_check"

const (
	ignitionProgram = "usr/lib/dracut/modules.d/30ignition/ignition"
	sysroot         = "sysroot" // where Ignition writes, and the root of the phone-home
)

// BuildGuest writes the operating system of the lab's machines into dir and returns the paths of its kernel and its
// initrd: Debian's cloud kernel, busybox, the real Ignition engine and curl, and guest/init.sh, which plays a first
// boot and reports on the serial line (the lines are listed there). Per-machine config goes into further initrds, as
// with Flatcar: usr/share/oem/config.ign. The boot server has to pass GuestArgs.
func BuildGuest(m Materials, dir string) (kernel, initrd string, err error) {
	kernel, err = m.one("boot/vmlinuz-*")
	if err != nil {
		return "", "", fmt.Errorf("build guest: %w", err)
	}
	initrd = filepath.Join(dir, "guest.initrd")
	if err := writeGuest(m, initrd); err != nil {
		return "", "", fmt.Errorf("build guest: %w", err)
	}
	// 42 MB become 17 in under a second, which needs no context; compress/gzip takes half a minute under the race detector.
	if out, err := exec.CommandContext(context.Background(), "gzip", "-1", "--no-name", "--force", initrd).CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("build guest: gzip: %w: %s", err, out)
	}
	return kernel, initrd + ".gz", nil
}

func writeGuest(m Materials, path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	out := newInitrd(file)
	if err := fillGuest(m, out); err != nil {
		return err
	}
	if err := out.close(); err != nil {
		return err
	}
	return file.Close()
}

func fillGuest(m Materials, out *initrd) error {
	out.add("init", 0o755, guestInit)
	out.copy("bin/busybox", filepath.Join(m.root(), "bin/busybox"))
	out.copy("bin/ignition", filepath.Join(m.root(), ignitionProgram))
	out.copy(sysroot+"/usr/bin/curl", filepath.Join(m.root(), "usr/bin/curl"))
	if err := addModules(m, out); err != nil {
		return err
	}
	if err := addLibraries(m, out); err != nil {
		return err
	}
	addSELinux(out)
	return nil
}

// addSELinux satisfies Debian's Ignition 2.14, which relabels what it wrote and fails where it can't.
func addSELinux(out *initrd) {
	out.add("bin/setfiles", 0o755, []byte("#!/bin/busybox true\n"))
	out.add(sysroot+"/etc/selinux/config", 0o644, []byte("SELINUX=disabled\nSELINUXTYPE=targeted\n"))
	out.add(sysroot+"/etc/selinux/targeted/contexts/files/file_contexts", 0o644, nil)
}

// addLibraries puts the shared libraries of Ignition and curl into the sysroot, for curl runs there, and lets the
// initrd's own root point at them.
func addLibraries(m Materials, out *initrd) error {
	const libs, loader = "usr/lib/x86_64-linux-gnu", "lib64/ld-linux-x86-64.so.2"
	needed, err := libraries(m.libraryDirs(), filepath.Join(m.root(), ignitionProgram), filepath.Join(m.root(), "usr/bin/curl"))
	if err != nil {
		return err
	}
	for _, path := range needed {
		out.copy(filepath.Join(sysroot, libs, filepath.Base(path)), path)
	}
	for _, root := range []string{"", sysroot} {
		out.link(filepath.Join(root, loader), "/"+filepath.Join(libs, filepath.Base(loader)))
	}
	out.link(libs, "/"+filepath.Join(sysroot, libs))
	return nil
}

// addModules puts the kernel's drivers for QEMU's machine into the initrd, and modules/order, the order to load them.
func addModules(m Materials, out *initrd) error {
	dir, err := m.one("lib/modules/*")
	if err != nil {
		return err
	}
	files, err := loadOrder(dir, "virtio_pci", "virtio_rng", "virtio_net")
	if err != nil {
		return err
	}
	var order []byte
	for _, path := range files {
		out.copy("modules/"+filepath.Base(path), path)
		order = append(order, filepath.Base(path)+"\n"...)
	}
	out.add("modules/order", 0o644, order)
	return nil
}
