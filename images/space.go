package images

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// RoomFor fails with ENOSPC unless the file system of a file has room for that
// many bytes and, after them, the reserve: the disk is shared with the store,
// which does not survive a full one.
func RoomFor(path string, bytes, reserve int64) error {
	var st unix.Statfs_t
	dir := filepath.Dir(path)
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	free := int64(st.Bavail) * st.Bsize
	if free-bytes < reserve {
		return fmt.Errorf("%w: %s has %d MiB free, %d MiB are to come and %d MiB stay in reserve: make room (nestctl image gc), or put the state elsewhere",
			syscall.ENOSPC, dir, free>>20, bytes>>20, reserve>>20)
	}
	return nil
}

// NoSpace reports whether an error is of a full disk or quota.
func NoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
