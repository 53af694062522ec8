package depot

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nestboot/nestboot/images"
	"github.com/nestboot/nestboot/images/bundle"
	"github.com/nestboot/nestboot/images/release"
)

// Export is a bundle that can be written: everything that it needs was there
// when it was made.
type Export struct {
	Key   string // fingerprint of the key that signs
	index bundle.Index
	key   ed25519.PrivateKey
	paths map[string]string // of the files on disk, by name in the bundle
}

// Export prepares a bundle of releases and of the binaries below bases, a folder
// of folders with files; empty: none.
func (d *Depot) Export(refs []release.Ref, bases string, key ed25519.PrivateKey) (*Export, error) {
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("the key that signs bundles is no Ed25519 key")
	}
	e := &Export{
		Key: bundle.Fingerprint(public), key: key, paths: map[string]string{},
		index: bundle.Index{Format: 1, Created: d.cfg.Now().UTC().Truncate(time.Second), Manifests: []json.RawMessage{}, Files: []bundle.File{}},
	}
	for _, r := range refs {
		m, err := d.Get(r)
		if err != nil {
			return nil, err
		}
		if bad := d.missing(m); len(bad) > 0 {
			return nil, fmt.Errorf("%s is damaged: %s: pull it again", m.ID(), strings.Join(bad, ", "))
		}
		data, err := m.Encode()
		if err != nil {
			return nil, err
		}
		e.index.Manifests = append(e.index.Manifests, data)
		for _, f := range m.Files() {
			e.add(bundle.File{Name: "blobs/" + f.SHA256, Size: f.Size, SHA256: f.SHA256}, d.blob(f.SHA256))
		}
	}
	if bases == "" {
		return e, nil
	}
	return e, e.addBases(bases)
}

func (e *Export) add(f bundle.File, path string) {
	if e.paths[f.Name] == "" { // releases share files
		e.index.Files, e.paths[f.Name] = append(e.index.Files, f), path
	}
}

// addBases adds every file of every folder that an import of binaries has made.
func (e *Export) addBases(dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, "*_*", "*"))
	if err != nil {
		return fmt.Errorf("list base binaries: %w", err)
	}
	slices.Sort(paths)
	for _, path := range paths {
		name := filepath.Base(path)
		folder := filepath.Base(filepath.Dir(path))
		if strings.HasPrefix(folder, ".") || strings.HasPrefix(name, ".") {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read base binaries: %w", err)
		}
		sum := sha256.Sum256(data)
		e.add(bundle.File{Name: "bases/" + folder + "/" + name, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}, path)
	}
	return nil
}

// Write writes the bundle. A file that is not what its digest says ends it, and
// what was written is no bundle.
func (e *Export) Write(ctx context.Context, w io.Writer) error {
	return bundle.Write(w, e.index, e.key, func(f bundle.File) (io.ReadCloser, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return os.Open(e.paths[f.Name])
	})
}

// ImportOptions say what an import may do.
type ImportOptions struct {
	Trusted func(fingerprint string) bool
	Force   bool   // as for Publish
	Bases   string // folder for binaries, as in Export; must be in the same file system
	Reserve int64  // bytes that must stay free
}

// Imported is what an import has brought.
type Imported struct {
	Key      string   `json:"key"`      // fingerprint of who signed the bundle
	Releases []string `json:"releases"` // ids
	Bases    []string `json:"bases"`    // folders that are new
}

// Import reads a bundle to its end and verifies all of it, and only then anything
// of it is visible.
func (d *Depot) Import(ctx context.Context, r io.Reader, o ImportOptions) (Imported, error) {
	b, err := bundle.Read(r, o.Trusted)
	if err != nil {
		return Imported{}, err
	}
	i := &importing{Depot: d, ImportOptions: o, bundle: b, parts: map[string]string{}}
	if err := i.manifests(); err != nil {
		return Imported{}, err
	}
	if i.staging, err = os.MkdirTemp(d.path(partialDir), stagingPrefix); err != nil {
		return Imported{}, fmt.Errorf("make room for the bundle: %w", err)
	}
	defer func() { _ = os.RemoveAll(i.staging) }() // Prepare looks for what stays
	if err := i.files(ctx); err != nil {
		return Imported{}, err
	}
	return i.publish(ctx)
}

// importing is one import.
type importing struct {
	*Depot
	ImportOptions
	bundle   *bundle.Reader
	releases []Manifest
	staging  string
	parts    map[string]string // staged files, by digest
	folders  []string          // staged folders of binaries
}

// manifests reads what the bundle says of its releases: all their files must be
// in it, and none may be older than what was here.
func (i *importing) manifests() error {
	has := map[string]int64{}
	total := int64(0)
	for _, f := range i.bundle.Files {
		total += f.Size
		if strings.HasPrefix(f.Name, "blobs/") {
			has[f.SHA256] = f.Size
		}
	}
	for _, raw := range i.bundle.Manifests {
		m, err := ReadManifest(raw)
		if err != nil {
			return fmt.Errorf("release in the bundle: %w", err)
		}
		for _, f := range m.Files() {
			if size, ok := has[f.SHA256]; !ok || size != f.Size {
				return fmt.Errorf("the bundle has not %s of %s", f.Name, m.ID())
			}
		}
		i.mu.Lock()
		err = i.mayPublish(m, i.Force)
		i.mu.Unlock()
		if err != nil {
			return err
		}
		i.releases = append(i.releases, m)
	}
	slices.SortFunc(i.releases, olderFirst) // so that force leaves the mark at the newest
	return images.RoomFor(i.path(partialDir, "x"), total, i.Reserve)
}

func olderFirst(a, b Manifest) int {
	switch {
	case line(a.Ref) != line(b.Ref):
		return strings.Compare(line(a.Ref), line(b.Ref))
	case release.Newer(a.Order, b.Version, a.Version):
		return -1
	}
	return 1
}

// files takes every file into the staging folder.
func (i *importing) files(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		var path string
		f, err := i.bundle.Next(func(f bundle.File) (w io.WriteCloser, err error) {
			path = filepath.Join(i.staging, filepath.FromSlash(f.Name)) // package bundle knows the form of names
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return nil, err
			}
			return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		})
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if strings.HasPrefix(f.Name, "blobs/") {
			i.parts[f.SHA256] = path
			continue
		}
		if err := syncFile(path); err != nil {
			return err
		}
		if folder := filepath.Dir(path); !slices.Contains(i.folders, folder) {
			i.folders = append(i.folders, folder)
		}
	}
}

// publish makes what was staged visible: binaries first, which no release needs.
func (i *importing) publish(ctx context.Context) (Imported, error) {
	out := Imported{Key: i.bundle.Key, Releases: []string{}, Bases: []string{}}
	for _, folder := range i.folders {
		to := filepath.Join(i.Bases, filepath.Base(folder))
		if _, err := os.Lstat(to); err == nil || i.Bases == "" {
			continue // what was imported first stays in use
		}
		err := errors.Join(syncDir(folder), os.Rename(folder, to), syncDir(i.Bases))
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return out, fmt.Errorf("put base binaries in place: %w", err)
		}
		out.Bases = append(out.Bases, filepath.Base(folder))
	}
	for _, m := range i.releases {
		if err := i.Publish(ctx, m, i.parts, i.Force); err != nil {
			return out, err
		}
		for _, f := range m.Files() {
			delete(i.parts, f.SHA256) // the next release finds it in the depot
		}
		out.Releases = append(out.Releases, m.ID())
	}
	return out, nil
}
