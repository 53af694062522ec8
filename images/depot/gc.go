package depot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nestboot/nestboot/images/release"
)

// partialAge is how long an unfinished download waits to be gone on with.
const partialAge = 7 * 24 * time.Hour

// Remove takes a release out, and what no other release needs. One that is in
// use is an InUseError.
func (d *Depot) Remove(r release.Ref) error {
	if _, err := d.Get(r); errors.Is(err, ErrUnknown) {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if slices.Contains(d.cfg.InUse(), r.ID()) {
		return &InUseError{ID: r.ID()}
	}
	if err := d.forget(r); err != nil {
		return err
	}
	_, err := d.sweep(nil, false)
	return err
}

// forget removes a manifest and the folders that it leaves empty.
func (d *Depot) forget(r release.Ref) error {
	path := d.manifest(r)
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove image: %w", err)
	}
	for dir := filepath.Dir(path); dir != d.path(manifestDir); dir = filepath.Dir(dir) {
		if err := os.Remove(dir); err != nil { // another release is in it
			return syncDir(dir)
		}
	}
	return syncDir(d.path(manifestDir))
}

// Collected is what a garbage collection has removed, or would.
type Collected struct {
	Releases []string `json:"releases"` // ids
	Files    int      `json:"files"`
	Bytes    int64    `json:"bytes"`
}

// Collect removes releases that nobody uses, but the newest keep of each system,
// channel and architecture, then files that no release needs, unfinished downloads
// that nobody goes on with, and damaged files. With dry it only says what it
// would.
func (d *Depot) Collect(keep int, dry bool) (Collected, error) {
	out := Collected{Releases: []string{}}
	d.mu.Lock()
	defer d.mu.Unlock()
	list, err := d.List()
	if err != nil {
		return out, err
	}
	slices.SortFunc(list, func(a, b Info) int { // the newest of a line first
		switch {
		case line(a.Ref) != line(b.Ref):
			return strings.Compare(line(a.Ref), line(b.Ref))
		case release.Newer(a.Order, a.Version, b.Version):
			return -1
		}
		return 1
	})
	seen := map[string]int{}
	gone := map[string]bool{}
	for _, i := range list {
		if seen[line(i.Ref)]++; seen[line(i.Ref)] <= keep || i.InUse {
			continue
		}
		out.Releases, gone[i.ID()] = append(out.Releases, i.ID()), true
		if !dry {
			if err := d.forget(i.Ref); err != nil {
				return out, err
			}
		}
	}
	swept, err := d.sweep(gone, dry)
	out.Files, out.Bytes = swept.Files, swept.Bytes
	return out, err
}

// sweep removes files that no release needs but those that are gone.
func (d *Depot) sweep(gone map[string]bool, dry bool) (Collected, error) {
	var out Collected
	list, bad, err := d.list()
	if err != nil {
		return out, err
	}
	if bad != nil { // what it needs, nobody knows
		return out, fmt.Errorf("no files are removed while a manifest cannot be read: remove it first: %w", bad)
	}
	needed := map[string]bool{}
	if d.cfg.Served != nil {
		for _, sha := range d.cfg.Served() {
			needed[sha] = true
		}
	}
	for _, i := range list {
		for _, f := range i.Files() {
			needed[f.SHA256] = needed[f.SHA256] || !gone[i.ID()]
		}
	}
	old := d.cfg.Now().Add(-partialAge)
	for dir, remove := range map[string]func(fs.FileInfo) bool{
		blobDir:       func(f fs.FileInfo) bool { return !needed[f.Name()] },
		partialDir:    func(f fs.FileInfo) bool { return !f.IsDir() && f.ModTime().Before(old) },
		quarantineDir: func(fs.FileInfo) bool { return true },
	} {
		if err := d.sweepDir(dir, remove, dry, &out); err != nil {
			return out, err
		}
	}
	return out, nil
}

func (d *Depot) sweepDir(dir string, remove func(fs.FileInfo) bool, dry bool, out *Collected) error {
	entries, err := os.ReadDir(d.path(dir))
	if err != nil {
		return fmt.Errorf("look for what nobody needs: %w", err)
	}
	for _, e := range entries {
		st, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look for what nobody needs: %w", err)
		}
		if !remove(st) {
			continue
		}
		out.Files++
		out.Bytes += st.Size()
		if !dry {
			if err := os.Remove(d.path(dir, e.Name())); err != nil {
				return fmt.Errorf("remove what nobody needs: %w", err)
			}
		}
	}
	return nil
}

// stagingPrefix begins the folders of imports that go on.
const stagingPrefix = "import-"

// sweepStaging removes what a process that was killed in an import has left.
func (d *Depot) sweepStaging() error {
	left, err := filepath.Glob(d.path(partialDir, stagingPrefix+"*"))
	if err != nil {
		return fmt.Errorf("look for unfinished imports: %w", err)
	}
	for _, path := range left {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove unfinished import: %w", err)
		}
	}
	return nil
}
