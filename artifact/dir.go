package artifact

import (
	"fmt"
	"os"
	"syscall"
)

// privateDir makes a folder that holds private keys, and refuses one that is
// not this user's alone.
func privateDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("make the folder of private keys: %w", err)
	}
	st, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("check the folder of private keys: %w", err)
	}
	if !st.IsDir() {
		return fmt.Errorf("%s would hold private keys and is not a folder: remove it", path)
	}
	return private(path)
}

// private fails unless path is this user's and nobody else can read it. It
// does not repair: what others could read may have been read.
func private(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("check permissions: %w", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d and bootd runs as %d: chown it", path, sys.Uid, os.Geteuid())
	}
	if st.Mode().Perm()&0o077 != 0 || st.Mode()&os.ModeSymlink != 0 {
		return fmt.Errorf("%s holds private keys and is open to others (mode %04o): run chmod go= %s", path, st.Mode().Perm(), path)
	}
	return nil
}

// syncDir makes renames in a folder durable.
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
