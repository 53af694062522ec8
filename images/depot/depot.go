// Package depot keeps the releases that were pulled or imported: files by their
// digest, and a manifest for each release.
//
// A release is there whole or not at all, whenever the power fails: its files
// are on disk before its manifest appears. Files are never changed; one that no
// longer has its digest is taken out, and its release is served no more. The
// depot verifies no signatures and fetches nothing. Begin at Open.
package depot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"github.com/nestboot/nestboot/images"
	"github.com/nestboot/nestboot/images/release"
)

// Config says where a depot is and who uses it.
type Config struct {
	Dir string // belongs to this user alone
	// InUse are the ids (release.Ref.ID) of releases that must not be removed.
	InUse func() []string
	// Served are the digests of files that machines get just now, whatever the
	// manifests say; they are not removed. Nil: none.
	Served func() []string
	Log    *slog.Logger
	Now    func() time.Time
}

// Depot is a folder with releases. Its methods may be called concurrently, by
// one process.
type Depot struct {
	cfg Config

	mu       sync.Mutex // held while what is visible changes
	state    state
	prepared bool
}

// state outlives restarts.
type state struct {
	// Newest is the highest version that was ever here, by system:channel:arch; or
	// what was forced in since.
	Newest map[string]string `json:"newest"`
	// Signed is when that version was signed, where it was.
	Signed map[string]time.Time `json:"signed,omitempty"`
	// Scrubbed is when every file was last compared with its digest.
	Scrubbed time.Time `json:"scrubbed"`
}

// ErrUnknown is a release that is not here.
var ErrUnknown = errors.New("this release is not here")

// InUseError is a release that can be neither removed nor replaced.
type InUseError struct{ ID string }

func (e *InUseError) Error() string {
	return e.ID + " is in use: images of bootd.yaml name it; take it out there and reload bootd first"
}

const (
	blobDir       = "blobs"
	manifestDir   = "manifests"
	partialDir    = "partial"
	quarantineDir = "quarantine"
	keysDir       = "keys"
	stateFile     = "state.json"
)

// Open looks at a folder, which may be missing still. It changes nothing: until
// Prepare, the depot can only be read, which another process may do too.
func Open(c Config) (*Depot, error) {
	d := &Depot{cfg: c}
	data, err := os.ReadFile(d.path(stateFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("open images: %w", err)
	default:
		if err := json.Unmarshal(data, &d.state); err != nil {
			return nil, fmt.Errorf("%s is damaged: restore it, or remove it, and older releases can come in: %w", d.path(stateFile), err)
		}
	}
	if d.state.Newest == nil {
		d.state.Newest = map[string]string{}
	}
	if d.state.Signed == nil {
		d.state.Signed = map[string]time.Time{}
	}
	return d, nil
}

// Prepare makes the folders, and removes what a process that was killed has
// left. From then on the depot may change, and is this process's alone.
func (d *Depot) Prepare() error {
	for _, dir := range []string{blobDir, manifestDir, partialDir, quarantineDir, keysDir} {
		if err := os.MkdirAll(d.path(dir), 0o700); err != nil {
			return fmt.Errorf("open images: %w", err)
		}
	}
	d.mu.Lock()
	d.prepared = true
	d.mu.Unlock()
	return d.sweepStaging()
}

func (d *Depot) path(parts ...string) string {
	return filepath.Join(append([]string{d.cfg.Dir}, parts...)...)
}

func (d *Depot) blob(sha string) string { return d.path(blobDir, sha) }

func (d *Depot) manifest(r release.Ref) string {
	return d.path(manifestDir, r.System, r.Channel, r.Version, r.Arch+".json")
}

// Get returns the manifest of a release. It is ErrUnknown if it is not here.
func (d *Depot) Get(r release.Ref) (Manifest, error) {
	if err := r.Validate(); err != nil {
		return Manifest{}, err
	}
	data, err := os.ReadFile(d.manifest(r))
	if errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, fmt.Errorf("%s for %s: %w: nestctl image pull %s --arch %s", r, r.Arch, ErrUnknown, r, r.Arch)
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("read manifest: %w", err)
	}
	m, err := ReadManifest(data)
	if err != nil {
		return m, fmt.Errorf("%s: %w", d.manifest(r), err)
	}
	if m.Ref != r {
		return m, fmt.Errorf("%s is of %s", d.manifest(r), m.ID())
	}
	return m, nil
}

// Info is a release in a list.
type Info struct {
	Manifest
	Damaged []string `json:"damaged"` // names of files that are missing or were taken out
	InUse   bool     `json:"in_use"`
}

// List returns the releases, in the order of their ids. Files are looked for and
// not read. A manifest that cannot be used is left out, with the reason in the
// log.
func (d *Depot) List() ([]Info, error) {
	all, bad, err := d.list()
	if bad != nil {
		d.cfg.Log.Error("a manifest of an image cannot be used: remove it, and pull the release again", "err", bad)
	}
	return all, err
}

// list returns in bad why some manifests are left out.
func (d *Depot) list() (all []Info, bad, err error) {
	used := d.cfg.InUse()
	err = filepath.WalkDir(d.path(manifestDir), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".json") {
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed just now
		}
		if err != nil {
			return err
		}
		m, err := ReadManifest(data)
		if err == nil && path != d.manifest(m.Ref) {
			err = fmt.Errorf("it is of %s", m.ID())
		}
		if err != nil {
			bad = errors.Join(bad, fmt.Errorf("%s: %w", path, err))
			return nil
		}
		all = append(all, Info{Manifest: m, Damaged: d.missing(m), InUse: slices.Contains(used, m.ID())})
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list images: %w", err)
	}
	slices.SortFunc(all, func(a, b Info) int { return strings.Compare(a.ID(), b.ID()) })
	return all, bad, nil
}

// missing are the names of files that are not here with their size.
func (d *Depot) missing(m Manifest) []string {
	names := []string{}
	for _, f := range m.Files() {
		if !d.Has(f) {
			names = append(names, f.Name)
		}
	}
	return names
}

// Has reports whether a file with this digest and size is here. It is not read.
func (d *Depot) Has(f File) bool {
	st, err := os.Stat(d.blob(f.SHA256))
	return err == nil && st.Mode().IsRegular() && st.Size() == f.Size
}

// Image opens a release to be served under a name. Every file is read and
// compared with its digest first; one that differs is taken out (T28).
func (d *Depot) Image(ctx context.Context, name string, r release.Ref) (*images.Image, Manifest, error) {
	m, err := d.Get(r)
	if err != nil {
		return nil, m, err
	}
	part := func(f File) images.Part {
		return images.Part{Name: f.Name, Path: d.blob(f.SHA256), SHA256: f.SHA256}
	}
	var initrds []images.Part
	for _, f := range m.Initrds {
		initrds = append(initrds, part(f))
	}
	img, err := images.OpenParts(ctx, name, part(m.Kernel), initrds)
	if errors.Is(err, images.ErrDamaged) {
		_, again := d.verify(ctx, m, nil) // finds which, and takes it out
		return nil, m, errors.Join(fmt.Errorf("%w: pull it again: nestctl image pull %s --arch %s", err, r, r.Arch), again)
	}
	return img, m, err
}

// saveState is called with mu held.
func (d *Depot) saveState() error {
	data, err := json.MarshalIndent(d.state, "", "  ")
	if err != nil {
		return fmt.Errorf("encode state of images: %w", err)
	}
	return d.write(d.path(stateFile), append(data, '\n'))
}

// write replaces a file so that a power cut leaves the old or the new one.
func (d *Depot) write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := renameio.WriteFile(path, data, 0o600, renameio.WithTempDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) { // folders that were made just now too
		if err := syncDir(dir); err != nil || dir == d.cfg.Dir {
			return err
		}
	}
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}
