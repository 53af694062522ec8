package artifact

import (
	"fmt"
	"os"
	"syscall"
)

// privateDir makes a folder for what only bootd may read or write: private keys,
// and the programs that machines will run. It refuses one that is not this user's
// alone.
func privateDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	st, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("check folder: %w", err)
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is for bootd alone and is not a folder: remove it", path)
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
		return fmt.Errorf("%s is for bootd alone and is open to others (mode %04o): run chmod go= %s", path, st.Mode().Perm(), path)
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
