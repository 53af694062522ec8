package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/nestboot/nestboot/ipxebuild"
)

// maxDeb is the largest .deb that is read.
const maxDeb = 64 << 20

const installBases = "install Debian's packages ipxe, pxelinux, isolinux and syslinux-common, " +
	"or name their .deb files or folders with their binaries with --base"

// debianBases are the folders of Debian's packages ipxe, pxelinux, isolinux and
// syslinux-common, as far as they are installed below root. One file of each
// says so: ipxe-qemu, which comes with QEMU and is of no use here, has the same
// folder as ipxe.
func debianBases(root string) []string {
	var dirs []string
	for _, file := range []string{
		"usr/lib/ipxe/undionly.kpxe", "usr/lib/PXELINUX/lpxelinux.0",
		"usr/lib/ISOLINUX/isolinux.bin", "usr/lib/syslinux/modules/bios/ldlinux.c32",
	} {
		p := filepath.Join(root, file)
		if _, err := os.Stat(p); err == nil {
			dirs = append(dirs, filepath.Dir(p))
		}
	}
	return dirs
}

// readStock reads the bases at the paths; with none named, what is installed
// below root.
func readStock(paths []string, root string) (*ipxebuild.Stock, error) {
	if len(paths) == 0 {
		paths = debianBases(root)
	}
	if len(paths) == 0 {
		return nil, errors.New("there are no stock binaries in /usr/lib: " + installBases)
	}
	var bundles []ipxebuild.Bundle
	for _, p := range paths {
		b, err := readBase(p)
		if err != nil {
			return nil, err
		}
		bundles = append(bundles, b)
	}
	return ipxebuild.NewStock(bundles...)
}

func readBase(from string) (ipxebuild.Bundle, error) {
	info, err := os.Stat(from)
	if err != nil {
		return ipxebuild.Bundle{}, err
	}
	if info.IsDir() {
		return ipxebuild.ReadDir(from, os.DirFS(from))
	}
	data, err := readFile(from, maxDeb)
	if err != nil {
		return ipxebuild.Bundle{}, err
	}
	return ipxebuild.ReadDeb(filepath.Base(from), data)
}

// earlierBuild reports whether dir holds an earlier build, which may be replaced
// then. What no build made is never replaced.
func earlierBuild(dir string, replace bool) (bool, error) {
	old, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(old) == 0 {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at --out: %w", err)
	}
	if stranger := notOfASet(dir, old); stranger != "" {
		return false, fmt.Errorf("--out %s holds %s, which is not from a build: name another folder", dir, stranger)
	}
	if !replace {
		return false, fmt.Errorf("--out %s holds an earlier build: name another folder, or replace it with --force", dir)
	}
	return true, nil
}

// writeSet writes the set to dir, whole or not at all. An old build is put
// aside first and removed at the end.
func writeSet(set *ipxebuild.Set, dir string, old bool) error {
	if !old {
		return set.WriteTo(dir)
	}
	// Both beside dir, so that renaming does not copy.
	work, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".new-")
	if err != nil {
		return fmt.Errorf("make folder beside --out: %w", err)
	}
	fresh, gone := filepath.Join(work, "new"), filepath.Join(work, "old")
	err = set.WriteTo(fresh)
	if err == nil {
		err = os.Rename(dir, gone)
	}
	if err == nil {
		if err = os.Rename(fresh, dir); err != nil {
			err = errors.Join(err, os.Rename(gone, dir))
		}
	}
	if err != nil {
		err = fmt.Errorf("replace %s: %w", dir, err)
	}
	if _, back := os.Stat(dir); back != nil {
		return errors.Join(err, fmt.Errorf("the earlier build is in %s", gone))
	}
	return errors.Join(err, os.RemoveAll(work))
}

// notOfASet is the name of an entry that does not belong to a set built in dir:
// those of rack1 are the folder rack1 with a manifest and files rack1.*.
func notOfASet(dir string, entries []fs.DirEntry) string {
	var sets []string
	for _, e := range entries {
		if _, err := os.Lstat(filepath.Join(dir, e.Name(), "manifest.json")); e.IsDir() && err == nil {
			sets = append(sets, e.Name())
		}
	}
	for _, e := range entries {
		set, _, _ := strings.Cut(e.Name(), ".")
		if !slices.Contains(sets, set) {
			return e.Name()
		}
	}
	return ""
}

// printSet prints what was built, what each file is for, and what a DHCP
// server must say.
func printSet(w io.Writer, set *ipxebuild.Set, dir string) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "built set %s of iPXE %s in %s\n\n", set.Name(), set.Version(), dir)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FILE\tPRIVATE KEY\tFOR")
	secret := false
	for _, f := range set.Files() {
		key := "-"
		if f.HoldsKey {
			key, secret = "inside", true
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Name, key, purpose(f.Format))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print set: %w", err)
	}
	if lines := bootNames(set); len(lines) > 0 {
		fmt.Fprintf(&b, "\nfile names for DHCP, below the folder that TFTP or HTTP serves:\n%s\n", strings.Join(lines, "\n"))
	}
	if secret {
		fmt.Fprint(&b, "\nfiles with a private key are readable by you alone; whoever gets one can boot as the set's machines,\n"+
			"and TFTP and HTTP hand them to anybody who asks\n")
	}
	for _, m := range set.Missing() {
		fmt.Fprintf(&b, "\nnot made: %s", m)
	}
	if _, err := w.Write(append(bytes.TrimRight(b.Bytes(), "\n"), '\n')); err != nil {
		return fmt.Errorf("print set: %w", err)
	}
	return nil
}

// bootNames are the names that DHCP hands out, by the architecture that a
// machine announces in option 93.
func bootNames(set *ipxebuild.Set) []string {
	names := map[ipxebuild.Format]string{}
	folder := "" // UEFI programs that look for a script
	for _, f := range set.Files() {
		names[f.Format] = f.Name // one file has each format that is asked for below
		if f.Format == ipxebuild.FormatEFIDir && path.Base(f.Name) == "snponly.efi" {
			folder = f.Name
		}
	}
	var lines []string
	for _, l := range []struct {
		machines string
		format   ipxebuild.Format
	}{
		{"BIOS (architecture 0)", ipxebuild.FormatPXE},
		{"UEFI x86-64 (7 and 9, by HTTP 16)", ipxebuild.FormatEFIAMD64},
		{"UEFI arm64 (11, by HTTP 19)", ipxebuild.FormatEFIARM64},
		{"user class iPXE", ipxebuild.FormatChain},
	} {
		if name, ok := names[l.format]; ok {
			lines = append(lines, "  "+l.machines+": "+name)
		}
	}
	if folder != "" {
		lines = append(lines, fmt.Sprintf("  UEFI x86-64, from the folder: %s, by TFTP with a copy of %s/%s in TFTP's root", folder, set.Name(), set.Script()))
	}
	return lines
}

// purpose is what a file is for, in a line.
func purpose(f ipxebuild.Format) string {
	switch f {
	case ipxebuild.FormatISO:
		return "CD or USB stick, BIOS and UEFI"
	case ipxebuild.FormatRaw:
		return "disk image, BIOS and UEFI"
	case ipxebuild.FormatPXE:
		return "BIOS by PXE, one file"
	case ipxebuild.FormatEFIAMD64:
		return "UEFI x86-64 by PXE, HTTP Boot or from a disk, one file"
	case ipxebuild.FormatEFIARM64:
		return "UEFI arm64 by PXE, HTTP Boot or from a disk, one file"
	case ipxebuild.FormatChain:
		return "script for machines that run iPXE already"
	case ipxebuild.FormatUndionly:
		return "BIOS by PXE, with a user-class rule in DHCP"
	case ipxebuild.FormatEFIDir:
		return "UEFI by PXE or HTTP Boot, keep the folder together"
	case ipxebuild.FormatPXELinux:
		return "BIOS by PXE, keep the folder together"
	case ipxebuild.FormatSigned:
		return "UEFI with Secure Boot, keep the folder together"
	case ipxebuild.FormatNotice:
		return "licences and where the sources are"
	case ipxebuild.FormatManifest:
		return "digests of all files"
	}
	return string(f)
}
