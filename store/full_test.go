package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"golang.org/x/sys/unix"
)

// tmpfs mounts a file system that is small enough to be filled.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("can't mount a tmpfs: %v", err)
		}
		t.Skipf("can't mount a tmpfs: %v", err)
	}
	// A store that died keeps its files open: detach.
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// fill leaves the file system of the store with the given bytes free.
func fill(t *testing.T, s *Store, leave int64) (filler string) {
	t.Helper()
	require.Eventually(t, func() bool {
		spare, _ := filepath.Glob(filepath.Join(s.dir.path, walDir, "*.tmp"))
		if len(spare) == 0 {
			return false
		}
		info, err := os.Stat(spare[0])
		return err == nil && info.Size() == wal.SegmentSizeBytes
	}, 5*time.Second, time.Millisecond, "etcd allocates the next log segment ahead")

	filler = filepath.Join(filepath.Dir(s.dir.path), "filler")
	f, err := os.Create(filler)
	require.NoError(t, err)
	defer f.Close()
	var fs unix.Statfs_t
	require.NoError(t, unix.Statfs(filler, &fs))
	require.NoError(t, unix.Fallocate(int(f.Fd()), 0, 0, int64(fs.Bavail)*fs.Bsize-leave))
	return filler
}

func TestReserveIsKept(t *testing.T) {
	t.Parallel()
	mount := tmpfs(t, "256m")
	s := open(t, Config{Dir: filepath.Join(mount, "state"), OnFatal: func(err error) { t.Error(err) }})
	put(t, s, "a", "1")
	m := mirror(t, s, "")
	filler := fill(t, s, 32<<20)

	var err error
	require.Eventually(t, func() bool {
		_, err = s.Put(t.Context(), "b", nil)
		return err != nil
	}, 5*time.Second, 10*time.Millisecond)
	require.ErrorIs(t, err, ErrNoSpace)
	require.Regexp(t, s.dir.path+` has 335\d{5} bytes free and 67108864 are kept in reserve`, err.Error())
	_, err = s.Delete(t.Context(), "a")
	require.ErrorIs(t, err, ErrNoSpace)
	_, err = s.Update(t.Context(), "a", increment)
	require.ErrorIs(t, err, ErrNoSpace)
	_, err = s.Commit(t.Context(), Txn{Then: []Op{Set("urgent", nil)}, Urgent: true})
	require.NoError(t, err, "32 MiB are more than a quarter of the reserve")
	s.space.min = 256 << 20
	_, err = s.Commit(t.Context(), Txn{Then: []Op{Set("urgent", nil)}, Urgent: true})
	require.ErrorIs(t, err, ErrNoSpace, "and less than a quarter of this one")
	s.space.min = defaultReserve
	_, err = s.Get(t.Context(), "a")
	require.NoError(t, err)
	_, ok := m.Get("a")
	require.True(t, ok)

	require.NoError(t, s.Close())
	s = open(t, Config{Dir: s.dir.path})
	_, err = s.Get(t.Context(), "a")
	require.NoError(t, err, "a store opens and is read without the reserve")
	_, err = s.Put(t.Context(), "b", nil)
	require.ErrorIs(t, err, ErrNoSpace)

	require.NoError(t, os.Remove(filler))
	require.Eventually(t, func() bool {
		_, err := s.Put(t.Context(), "b", nil)
		return err == nil
	}, 5*time.Second, 10*time.Millisecond)
}

// deathOf opens a store in dir with one entry, lets kill make it die, and
// checks what is left.
func deathOf(t *testing.T, cfg Config, kill func(s *Store)) {
	t.Helper()
	died := make(chan error, 1)
	var calls atomic.Int32
	cfg.OnFatal = func(err error) { calls.Add(1); died <- err }
	cfg.Reserve = -1
	s := open(t, cfg)
	put(t, s, "a", "1")
	m := mirror(t, s, "")
	changes, err := s.Watch(t.Context(), "nothing", 0)
	require.NoError(t, err)
	kill(s)

	acknowledged := 0
	require.Eventually(t, func() bool {
		if _, err = s.Put(t.Context(), "b", []byte(strings.Repeat("x", 100_000))); err == nil {
			acknowledged++
		}
		return err != nil
	}, 10*time.Second, time.Millisecond)
	require.ErrorIs(t, err, ErrUnavailable)
	err = <-died
	require.ErrorIs(t, err, ErrUnavailable)
	t.Logf("after %d writes: %v", acknowledged, err)

	requireUnavailable(t, s)
	e, ok := m.Get("a")
	require.True(t, ok)
	require.Equal(t, "1", string(e.Value))
	_, open := <-changes
	require.False(t, open)
	require.ErrorIs(t, s.Close(), ErrUnavailable)
	require.EqualValues(t, 1, calls.Load())
	_, err = Open(t.Context(), cfg)
	require.ErrorContains(t, err, "in use", "a dead engine keeps its files")
	requireAcknowledged(t, s.dir.path, acknowledged)
}

// requireAcknowledged opens a copy, as a restarted process would the original.
func requireAcknowledged(t *testing.T, dir string, writes int) {
	t.Helper()
	// The segment allocated ahead is not missed and takes long to copy.
	spare, err := filepath.Glob(filepath.Join(dir, walDir, "*.tmp"))
	require.NoError(t, err)
	for _, name := range spare {
		require.NoError(t, os.Remove(name))
	}
	cp := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(cp, os.DirFS(dir)))
	s := open(t, Config{Dir: cp})
	_, err = s.Get(t.Context(), "a")
	require.NoError(t, err)
	if _, err = s.Get(t.Context(), "b"); writes > 0 {
		require.NoError(t, err)
	}
	put(t, s, "b", "again")
}

func TestFullDiskIsSurvived(t *testing.T) {
	t.Parallel()
	mount := tmpfs(t, "160m")
	deathOf(t, Config{Dir: filepath.Join(mount, "state")}, func(s *Store) { fill(t, s, 0) })
}

// TestBrokenFilesAreSurvived puts /dev/full, where every write fails, in place
// of files that etcd has open.
func TestBrokenFilesAreSurvived(t *testing.T) {
	for name, suffix := range map[string]string{"log": ".wal", "database": "/db"} {
		t.Run(name, func(t *testing.T) {
			deathOf(t, inDir(t), func(s *Store) { breakFiles(t, s.dir.path, suffix) })
		})
	}
}

func breakFiles(t *testing.T, dir, suffix string) {
	t.Helper()
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	require.NoError(t, err)
	defer full.Close()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	broken := 0
	for _, fd := range fds {
		target, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(target, dir) || !strings.HasSuffix(target, suffix) {
			continue
		}
		require.NoError(t, err)
		number, err := strconv.Atoi(fd.Name())
		require.NoError(t, err)
		require.NoError(t, unix.Dup3(int(full.Fd()), number, 0))
		broken++
	}
	require.Positive(t, broken)
}

// TestOnFatalMayClose is what a daemon that gives up would do.
func TestOnFatalMayClose(t *testing.T) {
	cfg := inDir(t)
	closed := make(chan error, 1)
	stores := make(chan *Store, 1)
	cfg.OnFatal = func(error) { closed <- (<-stores).Close() }
	s := open(t, cfg)
	stores <- s
	breakFiles(t, cfg.Dir, ".wal")
	_, err := s.Put(context.Background(), "a", nil)
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorIs(t, <-closed, ErrUnavailable)
}

func TestNewStoreNeedsRoom(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(tmpfs(t, "100m"), "state")
	_, err := Open(t.Context(), Config{Dir: dir})
	require.ErrorIs(t, err, ErrNoSpace)
	require.ErrorContains(t, err, "and a new store needs 128000000: make room there")
	require.NoDirExists(t, filepath.Join(dir, "member"), "nothing half-made is left")
}
