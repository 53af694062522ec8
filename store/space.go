package store

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// spaceMaxAge bounds how old the answer about free space may be. What the store
// itself can write in that time is far below the default reserve.
const spaceMaxAge = time.Second

// firstLog is what etcd takes at once for a new log: two segments of 64 MB.
const firstLog = 2 * 64_000_000

// checkFirst refuses to make a new store where its log would not fit. The
// reserve does not count here: it is for writes.
func (r *reserve) checkFirst() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ask()
	if r.failed != nil {
		return r.failed
	}
	if r.free < firstLog {
		return fmt.Errorf("%w: %s has %d bytes free and a new store needs %d: make room there, or put the state elsewhere",
			ErrNoSpace, r.path, r.free, firstLog)
	}
	return nil
}

// reserve refuses writes while the file system of path has less than min bytes
// free: etcd does not survive a full disk, and the disk is shared with images.
type reserve struct {
	path string
	min  uint64

	mu     sync.Mutex
	asked  time.Time
	free   uint64
	failed error
}

func (r *reserve) check(urgent bool) error {
	need := r.min
	if urgent {
		need /= 4
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked.IsZero() || time.Since(r.asked) >= spaceMaxAge {
		r.ask()
	}
	if r.failed != nil {
		return r.failed
	}
	if r.free < need {
		return fmt.Errorf("%w: %s has %d bytes free and %d are kept in reserve: remove files there",
			ErrNoSpace, r.path, r.free, need)
	}
	return nil
}

func (r *reserve) ask() {
	var fs unix.Statfs_t
	r.asked, r.failed = time.Now(), nil
	if err := unix.Statfs(r.path, &fs); err != nil {
		r.failed = fmt.Errorf("ask for the free space of %s: %w", r.path, err)
		return
	}
	r.free = fs.Bavail * uint64(fs.Bsize)
}
