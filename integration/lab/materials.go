package lab

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Materials is the folder of unpacked Debian packages that integration/deps.sh fills: one tree per suite, nothing of
// it installed.
type Materials struct {
	Dir   string
	Suite string // whose tree Command runs programs of; bookworm when empty
}

// FindMaterials returns the materials in $NESTBOOT_CACHE, or else in the user's cache folder, as deps.sh does.
func FindMaterials() (Materials, error) {
	cache := os.Getenv("NESTBOOT_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return Materials{}, fmt.Errorf("find the lab's materials: %w", err)
		}
		cache = filepath.Join(user, "nestboot")
	}
	m := Materials{Dir: filepath.Join(cache, "materials")}
	if _, err := os.Stat(filepath.Join(m.Dir, "stamp")); err != nil {
		return Materials{}, fmt.Errorf("find the lab's materials (make deps fetches them): %w", err)
	}
	return m, nil
}

// IPXE returns the path of a stock iPXE program such as "snponly.efi" (Debian trixie's 1.21.1+git20250501).
func (m Materials) IPXE(name string) string { return filepath.Join(m.IPXEDir(), name) }

// IPXEDir is where the stock iPXE programs lie.
func (m Materials) IPXEDir() string { return filepath.Join(m.Dir, "trixie/usr/lib/ipxe") }

// IPXE2Dir is where the stock programs of the next iPXE lie (Debian forky's 2.0.0 or what follows it there).
func (m Materials) IPXE2Dir() string { return filepath.Join(m.Dir, "forky/usr/lib/ipxe") }

// SyslinuxDirs are where pxelinux, isolinux and the modules that both load lie.
func (m Materials) SyslinuxDirs() []string {
	lib := filepath.Join(m.Dir, "trixie/usr/lib")
	return []string{filepath.Join(lib, "PXELINUX"), filepath.Join(lib, "ISOLINUX"), filepath.Join(lib, "syslinux/modules/bios")}
}

// ShimDir is where a shim signed by Microsoft lies.
func (m Materials) ShimDir() string { return filepath.Join(m.Dir, "trixie/usr/lib/shim") }

// Debs returns the files of the Debian packages that boot artifacts are made of: both versions of iPXE, the older
// first, then pxelinux, isolinux and syslinux-common.
func (m Materials) Debs() []string {
	var debs []string
	for _, name := range []string{"trixie/ipxe", "forky/ipxe", "trixie/pxelinux", "trixie/isolinux", "trixie/syslinux-common"} {
		path := filepath.Join(m.Dir, "debs", name+"_*.deb")
		// A file that is missing is named to whoever opens it.
		if found, err := filepath.Glob(path); err == nil && len(found) == 1 {
			path = found[0]
		}
		debs = append(debs, path)
	}
	return debs
}

// Stock is the path of an unaltered iPXE on a CD, as a provider offers it: it trusts public authorities, none of ours.
func (m Materials) Stock() string { return m.IPXE("ipxe.iso") }

// root is the tree that the guest, the firmware and the other DHCP servers are taken from.
func (m Materials) root() string { return filepath.Join(m.Dir, cmp.Or(m.Suite, "bookworm")) }

// From is the same materials with the programs of another suite, such as "forky".
func (m Materials) From(suite string) Materials { m.Suite = suite; return m }

// Path is where a file of the suite lies, to be executed or read by name.
func (m Materials) Path(name string) string { return filepath.Join(m.root(), name) }

// libraryDirs are the folders of the tree that hold shared libraries, in the order of the loader's search.
func (m Materials) libraryDirs() []string {
	const triple = "x86_64-linux-gnu"
	return []string{
		filepath.Join(m.root(), "lib", triple),
		filepath.Join(m.root(), "usr/lib", triple),
		filepath.Join(m.root(), "usr/lib"),
	}
}

// Command runs a program of the materials on this machine with the libraries it was packaged with, for instance
// "usr/sbin/dhcpd", "usr/sbin/kea-dhcp4" or "usr/bin/ignition-validate". The loader is called by name: the host's own
// C library may be of another version.
func (m Materials) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	dirs := m.libraryDirs()
	all := append([]string{
		"--inhibit-cache", "--library-path", strings.Join(dirs, ":"), m.Path(program),
	}, args...)
	loader, err := locate(dirs, "ld-linux-x86-64.so.2") // newer suites have it below usr
	cmd := exec.CommandContext(ctx, loader, all...)
	if err != nil {
		cmd.Err = err // Start reports it
	}
	return cmd
}

// one returns the single path below the tree that matches pattern: versions are part of some names.
func (m Materials) one(pattern string) (string, error) {
	found, err := filepath.Glob(filepath.Join(m.root(), pattern))
	if err != nil {
		return "", fmt.Errorf("look for %s: %w", pattern, err)
	}
	if len(found) != 1 {
		return "", fmt.Errorf("look for %s in %s: %d found, want one (make deps)", pattern, m.root(), len(found))
	}
	return found[0], nil
}
