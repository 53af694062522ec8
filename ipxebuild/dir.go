package ipxebuild

import (
	"errors"
	"fmt"
	"io/fs"
)

// copyrightName is the file with a package's terms, in Debian's packages and
// in folders.
const copyrightName = "copyright"

// ReadDir takes the binaries that we know out of a folder, regular files only
// and subfolders excluded. path is for messages and the Origin, fsys is the
// folder itself (os.DirFS or os.Root.FS). The version is what the binaries say
// of themselves; binaries of several versions in one folder are an error. A
// file named copyright is the bundle's licence text.
//
// A folder that ReadDeb's bundle was written to (each base under its Name,
// License as copyright) reads as the same bundle but for its Origin.
func ReadDir(path string, fsys fs.FS) (Bundle, error) {
	b := Bundle{Origin: Origin{Package: path, File: path}}
	files, err := b.readDir(fsys)
	if err == nil {
		err = b.takeBases(files)
	}
	if err != nil {
		return Bundle{}, fmt.Errorf("read folder %s: %w", path, err)
	}
	b.Origin.Version = syslinuxVersion(b.Bases)
	for _, x := range b.Bases {
		if x.Version != "" {
			b.Origin.Version = x.Version
		}
	}
	b.describe("the package that filled " + path + " on the machine that made this set; ")
	return b, nil
}

func (b *Bundle) readDir(fsys fs.FS) (map[string][]byte, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, e := range entries {
		_, ok := kinds[e.Name()]
		if !e.Type().IsRegular() || (!ok && e.Name() != copyrightName) {
			continue
		}
		data, err := readFile(fsys, e.Name())
		if err != nil {
			return nil, err
		}
		if ok {
			files[e.Name()] = data
		} else {
			b.License = data
		}
	}
	return files, nil
}

func readFile(fsys fs.FS, name string) (data []byte, err error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	return readAll(name, f, st.Size(), maxBase)
}
