package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/nestboot/nestboot/ipxebuild"
)

const (
	bundleFile   = "base.json"
	licenseFile  = "copyright"
	importPrefix = ".import-" // of a folder that is not whole yet
)

// bundleRecord is what base.json holds.
type bundleRecord struct {
	Origin ipxebuild.Origin  `json:"origin"`
	Files  map[string]string `json:"files"` // SHA-256 in hexadecimal by name
}

func digestsOf(b ipxebuild.Bundle) map[string]string {
	sums := map[string]string{}
	for _, x := range b.Bases {
		sums[x.Name] = hex.EncodeToString(x.SHA256[:])
	}
	return sums
}

func sameFiles(a, b ipxebuild.Bundle) bool { return maps.Equal(digestsOf(a), digestsOf(b)) }

// writeBundle makes the folder of a bundle: whole or not at all.
func writeBundle(b ipxebuild.Bundle, dir, target string) (err error) {
	tmp, err := os.MkdirTemp(dir, importPrefix)
	if err != nil {
		return fmt.Errorf("make its folder: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	record, err := json.MarshalIndent(bundleRecord{b.Origin, digestsOf(b)}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode its record: %w", err)
	}
	files := map[string][]byte{bundleFile: append(record, '\n')}
	if len(b.License) > 0 {
		files[licenseFile] = b.License
	}
	for _, x := range b.Bases {
		files[x.Name] = x.Data
	}
	for name, data := range files {
		if filepath.Base(name) != name || strings.HasPrefix(name, ".") {
			return fmt.Errorf("%q is not a file name", name)
		}
		if err := renameio.WriteFile(filepath.Join(tmp, name), data, 0o600, renameio.WithTempDir(tmp)); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	if err := syncDir(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, target); err != nil {
		return fmt.Errorf("put its folder in place: %w", err)
	}
	return syncDir(dir)
}

// sweepImports removes what a process that was killed in an import has left.
func sweepImports(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, importPrefix+"*"))
	if err != nil {
		return fmt.Errorf("look for unfinished imports: %w", err)
	}
	for _, path := range left {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove an unfinished import: %w", err)
		}
	}
	return nil
}

// imported are the bundles in the folder of bases, by the name of their own
// folder; nil for one that is damaged.
type imported map[string]*ipxebuild.Bundle

// storedBundles reads all that was ever imported. What is damaged is left out,
// with the remedy in the log: sets that do not need it go on. Binaries that were
// just read as one of known are not parsed again: that takes a tenth of a second
// and more.
func storedBundles(ctx context.Context, dir string, known []ipxebuild.Bundle, log *slog.Logger) (imported, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list boot files: %w", err)
	}
	all := imported{}
	for _, e := range entries {
		// What no import made: lost+found of a file system, an operator's notes.
		if !e.IsDir() || !strings.Contains(e.Name(), "_") {
			continue
		}
		all[e.Name()] = nil
		b, err := readBundle(filepath.Join(dir, e.Name()), known)
		if err != nil {
			log.ErrorContext(ctx, "imported boot files are not used", "err", fmt.Errorf("%w: remove that folder and reload bootd, which imports it again from artifacts.bases", err))
			continue
		}
		all[e.Name()] = &b
	}
	return all, nil
}

// sorted are the bundles that are whole: packages before folders, since they
// know best where they come from, then by name.
func (s imported) sorted() []ipxebuild.Bundle {
	var debs, dirs []ipxebuild.Bundle
	for _, folder := range slices.Sorted(maps.Keys(s)) {
		switch b := s[folder]; {
		case b == nil:
		case b.Origin.SHA256 != "":
			debs = append(debs, *b)
		default:
			dirs = append(dirs, *b)
		}
	}
	return append(debs, dirs...)
}

// sameStock reports whether two stocks hold the same files.
func sameStock(a, b *ipxebuild.Stock) bool {
	if a == nil || b == nil {
		return a == b
	}
	return slices.EqualFunc(a.Bundles(), b.Bundles(), func(x, y ipxebuild.Bundle) bool {
		return x.Origin == y.Origin && sameFiles(x, y)
	})
}

// readBundle reads a folder that writeBundle made, and checks that it holds
// what was written.
func readBundle(dir string, known []ipxebuild.Bundle) (ipxebuild.Bundle, error) {
	rec, err := checkBundle(dir)
	if err != nil {
		return ipxebuild.Bundle{}, err
	}
	i := slices.IndexFunc(known, func(b ipxebuild.Bundle) bool { return maps.Equal(digestsOf(b), rec.Files) })
	if i < 0 {
		b, err := ipxebuild.ReadDir(dir, os.DirFS(dir))
		if err != nil {
			return b, fmt.Errorf("boot files in %s: %w", dir, err)
		}
		if !maps.Equal(digestsOf(b), rec.Files) {
			return b, fmt.Errorf("boot files in %s are not those that were imported", dir)
		}
		b.Origin = rec.Origin
		return b, nil
	}
	b := known[i]
	b.Origin = rec.Origin
	if b.License, err = os.ReadFile(filepath.Join(dir, licenseFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return b, fmt.Errorf("read licence: %w", err)
	}
	return b, nil
}

// checkBundle compares the files of a folder with the digests in its record.
func checkBundle(dir string) (bundleRecord, error) {
	var rec bundleRecord
	data, err := os.ReadFile(filepath.Join(dir, bundleFile))
	if err != nil {
		return rec, fmt.Errorf("boot files in %s have no record: %w", dir, err)
	}
	if err := json.Unmarshal(data, &rec); err != nil {
		return rec, fmt.Errorf("%s in %s is damaged: %w", bundleFile, dir, err)
	}
	for name, want := range rec.Files {
		data, err := os.ReadFile(filepath.Join(dir, filepath.Base(name)))
		if err != nil {
			return rec, fmt.Errorf("read boot file: %w", err)
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != want {
			return rec, fmt.Errorf("%s in %s is not what was imported (SHA-256 %x, want %s)", name, dir, sum, want)
		}
	}
	return rec, nil
}
