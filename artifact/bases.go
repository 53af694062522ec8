package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/nestboot/nestboot/ipxebuild"
)

// maxDeb is the largest package that is read. Debian's ipxe has 6 MiB.
const maxDeb = 64 << 20

// DefaultBases are the folders where Debian's packages ipxe, pxelinux, isolinux
// and syslinux-common put their binaries, as far as they exist here.
func DefaultBases() []string {
	var there []string
	for _, dir := range []string{"/usr/lib/ipxe", "/usr/lib/PXELINUX", "/usr/lib/ISOLINUX", "/usr/lib/syslinux/modules/bios"} {
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			there = append(there, dir)
		}
	}
	return there
}

// ReadBases reads .deb files and folders of binaries, and returns the faults of
// all of them at once.
func ReadBases(paths []string) ([]ipxebuild.Bundle, error) {
	var bundles []ipxebuild.Bundle
	var errs []error
	for _, path := range paths {
		b, err := readBase(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		bundles = append(bundles, b)
	}
	return bundles, errors.Join(errs...)
}

func readBase(path string) (ipxebuild.Bundle, error) {
	// A pipe must not hold up the start.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return ipxebuild.Bundle{}, fmt.Errorf("%w: name a .deb file or a folder of stock iPXE binaries", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	st, err := f.Stat()
	if err != nil {
		return ipxebuild.Bundle{}, fmt.Errorf("stat: %w", err)
	}
	if st.IsDir() {
		return ipxebuild.ReadDir(path, os.DirFS(path))
	}
	if !st.Mode().IsRegular() || !strings.HasSuffix(path, ".deb") {
		return ipxebuild.Bundle{}, fmt.Errorf("%s is neither a .deb file nor a folder", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxDeb+1))
	if err != nil {
		return ipxebuild.Bundle{}, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > maxDeb {
		return ipxebuild.Bundle{}, fmt.Errorf("%s has more than %d MiB: that is no package of boot files", path, maxDeb>>20)
	}
	return ipxebuild.ReadDeb(filepath.Base(path), data)
}

// OpenBases imports bundles into dir, one folder for each version of a package,
// and returns all that dir holds: what was imported once stays until an operator
// removes its folder, so that sets keep their base when a package is upgraded.
// Every file is compared with the digest that was written down at its import.
// Without any iPXE it returns nil and logs what to do.
func OpenBases(ctx context.Context, bundles []ipxebuild.Bundle, dir string, log *slog.Logger) (*ipxebuild.Stock, error) {
	if err := privateDir(dir); err != nil {
		return nil, err
	}
	if err := sweepImports(dir); err != nil {
		return nil, err
	}
	stored, err := storedBundles(ctx, dir, bundles, log)
	if err != nil {
		return nil, err
	}
	for _, b := range bundles {
		if err := stored.add(ctx, b, dir, log); err != nil {
			return nil, fmt.Errorf("import %s: %w", b.Origin.File, err)
		}
	}
	all := stored.sorted()
	if !hasIPXE(all) {
		log.WarnContext(ctx, "no artifact set can be made", "err", errNoBases)
		return nil, nil
	}
	stock, err := ipxebuild.NewStock(all...)
	if err != nil {
		return nil, fmt.Errorf("binaries in %s: %w", dir, err)
	}
	return stock, nil
}

func hasIPXE(bundles []ipxebuild.Bundle) bool {
	for _, b := range bundles {
		for _, x := range b.Bases {
			switch x.Kind {
			case ipxebuild.KindEFI, ipxebuild.KindKPXE, ipxebuild.KindLKRN, ipxebuild.KindSigned:
				return true
			}
		}
	}
	return false
}

// add imports a bundle unless it is there. One that does not go together with
// what is there is an error, and changes nothing.
func (s imported) add(ctx context.Context, b ipxebuild.Bundle, dir string, log *slog.Logger) error {
	folder := folderName(b.Origin)
	old, known := s[folder]
	switch {
	case known && old == nil:
		return nil // damaged: storedBundles has said so
	case known && sameFiles(*old, b):
		return nil
	case known:
		log.WarnContext(ctx, "boot files differ from those imported before under the same version; the imported ones stay in use",
			"package", b.Origin.Package, "version", b.Origin.Version, "remove_to_replace", filepath.Join(dir, folder))
		return nil
	}
	if all := append(s.sorted(), b); hasIPXE(all) {
		if _, err := ipxebuild.NewStock(all...); err != nil {
			return err
		}
	}
	if err := writeBundle(b, dir, filepath.Join(dir, folder)); err != nil {
		return err
	}
	s[folder] = &b
	log.InfoContext(ctx, "boot files were imported", "package", b.Origin.Package, "version", b.Origin.Version, "files", len(b.Bases))
	return nil
}

// folderName is "<package>_<version>", without what a path may not hold.
func folderName(o ipxebuild.Origin) string {
	clean := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+-.~", r) {
				return r
			}
			return '-'
		}, s)
	}
	name := strings.Trim(clean(o.Package), "-.") + "_" + clean(o.Version)
	return name[:min(len(name), 200)]
}
