package vault

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
)

// Dir makes a directory with mode 0700, or fails unless the one that is there
// belongs to this process's user alone.
func Dir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	return Private(path, 0o700)
}

// Private fails unless path belongs to this process's user alone, and says what
// to type, with mode as the right one. It doesn't repair: what others could read
// may have been read.
func Private(path string, mode fs.FileMode) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("check permissions: %w", err)
	}
	return private(path, info, mode)
}

func private(path string, info fs.FileInfo, mode fs.FileMode) error {
	uid := os.Geteuid()
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != uid {
		return fmt.Errorf("%s belongs to user %d, but this process runs as user %d: start it as that user, or run: chown -R %d %s", path, st.Uid, uid, uid, path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("%s is open to others (mode %04o): run: chmod %04o %s", path, perm, mode, path)
	}
	return nil
}

// readFile reads a private file as it lies there.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read private file: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("check permissions: %w", err)
	}
	if err := private(path, info, 0o600); err != nil {
		return nil, err
	}
	const most = maxFile + maxFile/8 // age adds 16 bytes to every 64 KiB, and a header
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("read private file: %w", err)
	}
	if len(data) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes: it is not a private file of ours, restore it from a backup", path, maxFile)
	}
	return data, nil
}

// writeFile replaces a file so that a crash leaves the old or the new one. The
// temporary file stays in the directory: a key must not pass through /tmp. The
// former file's mode doesn't matter, which renameio.WriteFile would keep.
func writeFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { _ = f.Cleanup() }() // after the replacement it does nothing
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(dir)
}

// syncDir makes renames durable, so that files appear in the order in which they
// were written whenever the power fails.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
