package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Clear lists the private files below the directories that are not encrypted:
// those named *.key or *.secret, and all that hold a private key in PEM form. A
// directory that doesn't exist holds none. A file may be named too, and stands
// for what interrupted writes of it have left as well.
func (v *Vault) Clear(dirs ...string) ([]string, error) {
	var found, paths []string
	for _, path := range dirs {
		left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"[0-9]*"))
		if err != nil {
			return nil, fmt.Errorf("look for private files: %w", err)
		}
		paths = append(append(paths, path), left...)
	}
	for _, path := range paths {
		err := walk(path, func(path string) error {
			data, err := head(path, maxFile)
			if err == nil && privateContent(path, data) && !encryptedForm(data) {
				found = append(found, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// Seal encrypts what Clear lists and returns how many files that were. Each file
// is whole all the time: if the process dies, the next Seal goes on. The parts
// of interrupted writes are removed. It is for a start, before anybody else uses
// the files.
//
// It can't take back what the disk's free blocks, snapshots and backups hold:
// keys that must never have been in clear have to be made anew.
func (v *Vault) Seal(dirs ...string) (n int, err error) {
	if !v.Sealed() {
		return 0, errors.New("encrypt private files: no key is configured: set keys.passphrase_file, keys.credential or keys.age_identity")
	}
	paths, err := v.Clear(dirs...)
	if err != nil {
		return 0, fmt.Errorf("encrypt private files: %w", err)
	}
	for _, path := range paths {
		if err := v.sealFile(path); err != nil {
			return n, fmt.Errorf("encrypt private files: %w", err)
		}
		n++
		v.step("sealed")
	}
	return n, nil
}

func (v *Vault) sealFile(path string) error {
	if _, temporary := finalName(path); temporary {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove what an interrupted write left: %w", err)
		}
		return syncDir(filepath.Dir(path))
	}
	data, err := v.Read(path)
	if err != nil {
		return err
	}
	return v.Write(path, data)
}

// encrypted returns one file below the vault's directory that is encrypted;
// empty: there is none.
func (v *Vault) encrypted() (string, error) {
	var found string
	err := walk(v.dir, func(path string) error {
		data, err := head(path, int64(len(header)))
		if err == nil && encryptedForm(data) {
			if _, temporary := finalName(path); !temporary { // of an Open that was killed
				found = path
				return fs.SkipAll
			}
		}
		return err
	})
	return found, err
}

// walk calls f for each regular file below dir. Files may go meanwhile.
func walk(dir string, f func(path string) error) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !d.Type().IsRegular():
			return nil
		}
		if err := f(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for private files: %w", err)
	}
	return nil
}

// head reads the first bytes of a file.
func head(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	return io.ReadAll(io.LimitReader(f, most))
}

func privateContent(path string, data []byte) bool {
	name, _ := finalName(path)
	return strings.HasSuffix(name, ".key") || strings.HasSuffix(name, ".secret") ||
		bytes.Contains(data, []byte("PRIVATE KEY-----"))
}

// finalName is the name under which a file would be used: that of a temporary
// one is between a dot and a number (renameio).
func finalName(path string) (name string, temporary bool) {
	name = filepath.Base(path)
	rest, dot := strings.CutPrefix(name, ".")
	trimmed := strings.TrimRight(rest, "0123456789")
	if !dot || trimmed == rest || trimmed == "" {
		return name, false
	}
	return trimmed, true
}
