package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
)

// save writes a file of a set to a path, or under its own name into a folder,
// and returns where it is. A file that is there is replaced if force says so. A file is there whole or not at all; what is no file
// (a stick, a pipe) is written to and stays what it is.
func save(to string, f setFile, data []byte, force bool) (string, error) {
	st, err := os.Stat(to)
	if to == "" || err == nil && st.IsDir() {
		to = filepath.Join(to, path.Base(f.Name))
		st, err = os.Stat(to)
	}
	switch {
	case err == nil && !st.Mode().IsRegular():
		err = writeInto(to, st.Mode(), data)
	case err == nil && !force:
		err = errors.New("it is there already: replace it with --force")
	case err == nil || errors.Is(err, fs.ErrNotExist):
		err = replaceFile(to, f.HoldsKey, data)
	}
	if err != nil {
		return "", fmt.Errorf("save %s: %w", to, err)
	}
	return to, nil
}

// replaceFile replaces the file that to is or points to.
func replaceFile(to string, private bool, data []byte) (err error) {
	if _, err := os.Lstat(to); err == nil {
		if to, err = filepath.EvalSymlinks(to); err != nil {
			return err // it points nowhere
		}
	}
	mode := os.FileMode(0o644)
	if private {
		mode = 0o600
	}
	// Not renameio.WriteFile, which would keep the mode of a file that is there.
	w, err := renameio.NewPendingFile(to, renameio.WithTempDir(filepath.Dir(to)), renameio.WithStaticPermissions(mode))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Cleanup()) }()
	if _, err := w.Write(data); err != nil {
		return err
	}
	return w.CloseAtomicallyReplace()
}

// writeInto writes to a device or a pipe.
func writeInto(to string, mode fs.FileMode, data []byte) (err error) {
	if mode.IsDir() {
		return errors.New("it is a folder")
	}
	disk := mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0
	flag := os.O_WRONLY
	if disk {
		flag |= syscall.O_EXCL // Linux: EBUSY while it is mounted
	}
	w, err := os.OpenFile(to, flag, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if _, err := w.Write(data); err != nil || !disk {
		return err
	}
	return w.Sync()
}
