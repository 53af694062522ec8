package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"text/tabwriter"

	"github.com/nestboot/nestboot/ipxebuild"
)

const installBases = "install Debian's packages ipxe, pxelinux, isolinux and syslinux-common, " +
	"or name their .deb files or folders with their binaries with --base"

// readStock reads the bases at the paths; with none named, what is installed
// below root.
func readStock(paths []string, root string) (*ipxebuild.Stock, error) {
	if len(paths) == 0 {
		paths = ipxebuild.DebianBases(root)
	}
	if len(paths) == 0 {
		return nil, errors.New("there are no stock binaries in /usr/lib/ipxe: " + installBases)
	}
	var bundles []ipxebuild.Bundle
	for _, p := range paths {
		b, err := ipxebuild.ReadPath(p)
		if err != nil {
			return nil, err
		}
		bundles = append(bundles, b)
	}
	return ipxebuild.NewStock(bundles...)
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
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Name, key, useOf(f.Name, f.Format).what)
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
