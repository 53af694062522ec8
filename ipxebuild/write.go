package ipxebuild

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sync/errgroup"
)

// WriteTo renders all files and puts them in dir, which must not exist or
// be empty: made beside it, synced and renamed, so that dir is whole or not
// there, also after a power cut.
// Files with a key in them have mode 0600, the others 0644, and dir 0700.
func (s *Set) WriteTo(dir string) (err error) {
	tmp, err := os.MkdirTemp(filepath.Dir(filepath.Clean(dir)), ".nestboot-set-")
	if err != nil {
		return fmt.Errorf("write set %s: %w", s.cfg.Name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := s.writeFiles(tmp); err != nil {
		return fmt.Errorf("write set %s: %w", s.cfg.Name, err)
	}
	_ = syscall.Rmdir(dir) // rename would not replace an empty folder; anything else stays, and rename refuses
	if err := os.Rename(tmp, dir); err != nil {
		return fmt.Errorf("write set %s to %s, which must not exist or be empty: %w", s.cfg.Name, dir, err)
	}
	return syncFile(filepath.Dir(filepath.Clean(dir)))
}

// writeFiles makes and writes the files side by side: hashing and the copies
// into the page cache are most of the work.
func (s *Set) writeFiles(dir string) error {
	files := make([]manifestFile, len(s.files))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, f := range s.files {
		if f.Format == FormatManifest || f.same != "" {
			continue
		}
		g.Go(func() error {
			data, err := s.Render(f.Name)
			if err != nil {
				return err
			}
			sum := hexDigest(data)
			for j, twin := range s.files {
				if j == i || twin.same == f.Name {
					files[j] = describeFile(twin, data, sum)
					err = errors.Join(err, writeFile(dir, twin.FileInfo, data))
				}
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	files = files[:len(files)-1] // the manifest is the last
	data, err := s.encodeManifest(files)
	if err != nil {
		return err
	}
	if err := writeFile(dir, s.files[len(s.files)-1].FileInfo, data); err != nil {
		return err
	}
	return syncTree(dir)
}

// syncTree makes all below dir durable, one after the other: what the first
// sync writes, the others find done.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncFile(path)
	})
}

// syncFile makes a file's bytes or a folder's names durable.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func writeFile(dir string, f FileInfo, data []byte) error {
	mode := os.FileMode(0o644)
	if f.HoldsKey {
		mode = 0o600
	}
	path := filepath.Join(dir, filepath.FromSlash(f.Name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, data, mode)
}
