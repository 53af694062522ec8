package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

const (
	lockName   = "LOCK"
	formatName = "FORMAT"
	// formatVersion counts incompatible changes to what the directory holds.
	formatVersion = 1
)

// directory is a locked store directory in a known format.
type directory struct {
	path  string
	lock  *os.File
	fresh bool
}

// openDirectory makes or takes over path, for this process alone.
func openDirectory(path string, log *slog.Logger) (*directory, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the directory: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory: %w", err)
	}
	if err := makePrivate(path, log); err != nil {
		return nil, err
	}
	lock, err := lockDirectory(path)
	if err != nil {
		return nil, err
	}
	d := &directory{path: path, lock: lock}
	if err := d.checkFormat(); err != nil {
		return nil, errors.Join(err, d.release())
	}
	return d, nil
}

// makePrivate refuses a directory of another user and closes one that others
// may enter.
func makePrivate(path string, log *slog.Logger) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("look at the directory: %w", err)
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	if me := os.Geteuid(); int(owner) != me {
		return fmt.Errorf("it belongs to user id %d and this process runs as %d: "+
			"run as that user or `chown -R %d %s`", owner, me, me, path)
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	log.Warn("state directory was open to other users, made it private", "dir", path, "mode", info.Mode().Perm().String())
	if err := os.Chmod(path, 0o700); err != nil {
		return fmt.Errorf("make the directory private: %w", err)
	}
	return nil
}

// lockDirectory keeps a second process out. etcd's own locks come too late and
// wait instead of failing.
func lockDirectory(path string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(path, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the directory: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	defer f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("it is in use by another process: stop that one first, `fuser %s` names it", f.Name())
	}
	return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
}

// release gives the directory back. The lock file stays: removing it would let
// two processes hold locks on two files of that name.
func (d *directory) release() error {
	if err := d.lock.Close(); err != nil {
		return fmt.Errorf("unlock %s: %w", d.path, err)
	}
	return nil
}

// checkFormat decides whether the directory is ours, and empty, or known, or
// left behind by a start that never finished.
func (d *directory) checkFormat() error {
	data, err := os.ReadFile(filepath.Join(d.path, formatName))
	if errors.Is(err, fs.ErrNotExist) {
		if err := d.checkEmpty(); err != nil {
			return err
		}
		d.fresh = true
		return d.writeFormat()
	}
	if err != nil {
		return fmt.Errorf("read the format: %w", err)
	}
	if d.fresh, err = parseFormat(string(data)); err != nil {
		return err
	}
	if d.fresh {
		// No Open has ever returned from here, so nothing was promised to anyone.
		if err := os.RemoveAll(filepath.Join(d.path, memberDir)); err != nil {
			return fmt.Errorf("remove an unfinished start: %w", err)
		}
		return nil
	}
	if !hasMember(d.path) {
		return fmt.Errorf("it is damaged: %s and %s must both be there: restore both from a backup, "+
			"or remove the whole directory to start empty", dbFile, walDir)
	}
	return nil
}

// checkEmpty refuses to mix state with files that are not ours. Names with a
// dot are temporary files of ours or none of our business, and lost+found is
// what a fresh file system holds.
func (d *directory) checkEmpty() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("list the directory: %w", err)
	}
	for _, e := range entries {
		if n := e.Name(); n != lockName && n != "lost+found" && !strings.HasPrefix(n, ".") {
			return fmt.Errorf("it has no %s file and is not empty, %s is in it: name an empty directory", formatName, n)
		}
	}
	return nil
}

// markReady records that etcd came up in the directory once.
func (d *directory) markReady() error {
	if !d.fresh {
		return nil
	}
	d.fresh = false
	return d.writeFormat()
}

const formatLine = "nestboot store %d"

// writeFormat replaces the format file and makes that survive a power cut.
func (d *directory) writeFormat() error {
	line := fmt.Sprintf(formatLine, formatVersion)
	if d.fresh {
		line += " unfinished"
	}
	if err := renameio.WriteFile(filepath.Join(d.path, formatName), []byte(line+"\n"), 0o600, renameio.WithTempDir(d.path)); err != nil {
		return fmt.Errorf("write the format: %w", err)
	}
	dir, err := os.Open(d.path)
	if err != nil {
		return fmt.Errorf("sync the directory: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync the directory: %w", err)
	}
	return nil
}

// parseFormat reports whether the directory's first start has not finished.
func parseFormat(text string) (unfinished bool, err error) {
	text = strings.TrimSuffix(text, "\n")
	text, unfinished = strings.CutSuffix(text, " unfinished")
	var found int
	if n, _ := fmt.Sscanf(text, formatLine, &found); n != 1 || text != fmt.Sprintf(formatLine, found) {
		return false, fmt.Errorf("its %s file is not ours or damaged: %.40q", formatName, text)
	}
	if found != formatVersion {
		return false, fmt.Errorf("it is in format %d, this nestboot knows format %d: "+
			"install the nestboot that wrote it or restore an older backup", found, formatVersion)
	}
	return unfinished, nil
}
