package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nestboot/nestboot/ipxebuild"
)

// earlierBuild reports whether dir holds an earlier build, which may be replaced
// then. What no build made is never replaced: people keep the key that they
// built with beside what they built.
func earlierBuild(dir string, replace bool) (bool, error) {
	old, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(old) == 0 {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at --out: %w", err)
	}
	stranger, err := notOfASet(dir, old)
	if err != nil {
		return false, fmt.Errorf("look at --out: %w", err)
	}
	if stranger != "" {
		return false, fmt.Errorf("--out %s holds %s, which is not from a build: name another folder", dir, stranger)
	}
	if !replace {
		return false, fmt.Errorf("--out %s holds an earlier build: name another folder, or replace it with --force", dir)
	}
	return true, nil
}

// notOfASet is the path below dir of a file that the manifest of no set in dir
// names, or of a folder that holds none.
func notOfASet(dir string, entries []fs.DirEntry) (string, error) {
	made := map[string]bool{} // files and the folders that they lie in
	for _, e := range entries {
		for _, name := range listed(dir, e.Name()) {
			for ; name != "."; name = filepath.Dir(name) {
				made[name] = true
			}
		}
	}
	stranger := ""
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err == nil && (!made[name] || !d.IsDir() && !d.Type().IsRegular()) {
			stranger, err = name, fs.SkipAll
		}
		return err
	})
	return stranger, err
}

// maxManifest is beyond any manifest.
const maxManifest = 1 << 20

// listed are the files of the set in dir, by its manifest; none if there is no
// such set.
func listed(dir, set string) []string {
	at := filepath.Join(set, "manifest.json")
	if st, err := os.Lstat(filepath.Join(dir, at)); err != nil || !st.Mode().IsRegular() {
		return nil
	}
	data, err := readFile(filepath.Join(dir, at), maxManifest)
	if err != nil {
		return nil
	}
	var m struct {
		Set   string `json:"set"`
		Files []struct {
			Name string `json:"name"`
		} `json:"files"`
	}
	if json.Unmarshal(data, &m) != nil || m.Set != set {
		return nil
	}
	names := []string{at}
	for _, f := range m.Files {
		if filepath.IsLocal(f.Name) {
			names = append(names, filepath.Clean(f.Name))
		}
	}
	return names
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
