package artifact

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nestboot/nestboot/ipxebuild"
	"github.com/nestboot/nestboot/pki/vault"
)

// ReadBases reads .deb files and folders of binaries, and returns the faults of
// all of them at once.
func ReadBases(paths []string) ([]ipxebuild.Bundle, error) {
	var bundles []ipxebuild.Bundle
	var errs []error
	for _, path := range paths {
		b, err := ipxebuild.ReadPath(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		bundles = append(bundles, b)
	}
	return bundles, errors.Join(errs...)
}

// DefaultBases reads the folders of Debian's packages ipxe, pxelinux, isolinux
// and syslinux-common, as far as they are installed below root. Nobody has asked
// for them, so one that cannot be used is left out, with the reason in the log.
func DefaultBases(ctx context.Context, root string, log *slog.Logger) []ipxebuild.Bundle {
	var bundles []ipxebuild.Bundle
	for _, path := range ipxebuild.DebianBases(root) {
		b, err := ipxebuild.ReadPath(path)
		if err != nil {
			log.WarnContext(ctx, "boot files of an installed package are not used", "err", err)
			continue
		}
		bundles = append(bundles, b)
	}
	return bundles
}

// OpenBases imports bundles into dir, one folder for each version of a package,
// and returns all that dir holds: what was imported once stays until an operator
// removes its folder, so that sets keep their base when a package is upgraded.
// Every file is compared with the digest that was written down at its import.
// Without any iPXE it returns nil and logs what to do.
func OpenBases(ctx context.Context, bundles []ipxebuild.Bundle, dir string, log *slog.Logger) (*ipxebuild.Stock, error) {
	if err := vault.Dir(dir); err != nil {
		return nil, fmt.Errorf("boot files: %w", err)
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

// conflict is the folder of a bundle that b does not go together with, and why;
// no error: there is none.
func (s imported) conflict(b ipxebuild.Bundle) (string, error) {
	for _, folder := range slices.Sorted(maps.Keys(s)) {
		old := s[folder]
		if old == nil || !hasIPXE([]ipxebuild.Bundle{*old, b}) {
			continue
		}
		if _, err := ipxebuild.NewStock(*old, b); err != nil {
			return folder, err
		}
	}
	return "", nil
}

// add imports a bundle unless it is there. One that does not go together with
// what is there is left out: sets are made of the former, and go on.
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
	if other, err := s.conflict(b); err != nil {
		log.ErrorContext(ctx, "boot files are not imported: others of the same version were imported before, and stay in use",
			"package", b.Origin.Package, "version", b.Origin.Version, "err", err, "remove_to_replace", filepath.Join(dir, other))
		return nil
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
