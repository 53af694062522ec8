package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// TestMain lets the test binary be the child processes of its own tests.
func TestMain(m *testing.M) {
	switch dir := os.Getenv("STORE_TEST_DIR"); os.Getenv("STORE_TEST_CHILD") {
	case "write":
		childWrite(dir)
	case "open":
		childOpen(dir)
	default:
		os.Exit(m.Run())
	}
}

// open opens a store in dir and closes it at the end of the test.
func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func inDir(t testing.TB) Config { return Config{Dir: filepath.Join(t.TempDir(), "state")} }

func put(t testing.TB, s *Store, key, value string) int64 {
	t.Helper()
	revision, err := s.Put(context.Background(), key, []byte(value))
	require.NoError(t, err)
	return revision
}

func TestReopen(t *testing.T) {
	cfg := inDir(t)
	s := open(t, cfg)
	revision := put(t, s, "a", "1")
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "a second Close returns the first result")

	s = open(t, cfg)
	e, err := s.Get(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, Entry{Key: "a", Value: []byte("1"), Revision: revision, Created: revision}, e)
	require.Greater(t, put(t, s, "a", "2"), revision, "revisions grow over restarts")
}

func TestClosedStoreIsUnavailable(t *testing.T) {
	s := open(t, inDir(t))
	put(t, s, "a", "1")
	m, err := s.Mirror(t.Context(), "")
	require.NoError(t, err)
	changes, err := s.Watch(t.Context(), "", 0)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	requireUnavailable(t, s)

	_, open := <-changes
	require.False(t, open, "watches end with the store")
	e, ok := m.Get("a")
	require.True(t, ok, "a mirror answers after Close")
	require.Equal(t, "1", string(e.Value))
	require.ErrorIs(t, m.Wait(t.Context(), m.Revision()+1), ErrUnavailable)
	require.NoError(t, m.Wait(t.Context(), m.Revision()))
}

// requireUnavailable tries everything that talks to etcd.
func requireUnavailable(t *testing.T, s *Store) {
	t.Helper()
	start := time.Now()
	for name, try := range map[string]func(context.Context) error{
		"Get":    func(ctx context.Context) error { _, err := s.Get(ctx, "a"); return err },
		"List":   func(ctx context.Context) error { _, err := s.List(ctx, ""); return err },
		"Put":    func(ctx context.Context) error { _, err := s.Put(ctx, "a", nil); return err },
		"Delete": func(ctx context.Context) error { _, err := s.Delete(ctx, "a"); return err },
		"Commit": func(ctx context.Context) error { _, err := s.Commit(ctx, Txn{}); return err },
		"Watch":  func(ctx context.Context) error { _, err := s.Watch(ctx, "", 0); return err },
		"Mirror": func(ctx context.Context) error { _, err := s.Mirror(ctx, ""); return err },
		"Update": func(ctx context.Context) error {
			_, err := s.Update(ctx, "a", func(b []byte) ([]byte, error) { return b, nil })
			return err
		},
	} {
		require.ErrorIs(t, try(t.Context()), ErrUnavailable, name)
	}
	require.Less(t, time.Since(start), time.Second)
}

func TestCloseLeavesNothingRunning(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s := open(t, inDir(t))
	_, err := s.Mirror(context.Background(), "")
	require.NoError(t, err)
	_, err = s.Watch(context.Background(), "", 0)
	require.NoError(t, err)
	put(t, s, "a", "1")
	require.NoError(t, s.Close())
	goleak.VerifyNone(t, before)
}

func TestCloseWhileBusy(t *testing.T) {
	s := open(t, inDir(t))
	var writers sync.WaitGroup
	for i := range 8 {
		writers.Go(func() {
			for {
				if _, err := s.Put(context.Background(), fmt.Sprint(i), nil); err != nil {
					if !errors.Is(err, ErrUnavailable) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	changes, err := s.Watch(t.Context(), "7", 0)
	require.NoError(t, err)
	<-changes
	require.NoError(t, s.Close())
	writers.Wait()
}

func TestContextEndsARequest(t *testing.T) {
	s := open(t, inDir(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Get(ctx, "a")
	require.ErrorIs(t, err, context.Canceled)
	_, err = Open(ctx, inDir(t))
	require.ErrorIs(t, err, context.Canceled)
}

// sockets lists the listening sockets of the kernel by their inodes.
func sockets(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, table := range []string{"tcp", "tcp6", "unix"} {
		text, err := os.ReadFile("/proc/self/net/" + table)
		if errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6
		}
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			switch {
			case len(f) > 9 && f[3] == "0A": // TCP_LISTEN
				found["socket:["+f[9]+"]"] = true
			case len(f) > 6 && f[3] == "00010000": // __SO_ACCEPTCON
				found["socket:["+f[6]+"]"] = true
			}
		}
	}
	return found
}

func TestOpensNoListener(t *testing.T) {
	listening := func() (mine []string) {
		all := sockets(t)
		fds, err := filepath.Glob("/proc/self/fd/*")
		require.NoError(t, err)
		for _, fd := range fds {
			if target, _ := os.Readlink(fd); all[target] {
				mine = append(mine, target)
			}
		}
		return mine
	}
	before := listening()
	s := open(t, inDir(t))
	put(t, s, "a", "1")
	require.Equal(t, before, listening())

	for network, addr := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")} {
		l, err := net.Listen(network, addr)
		require.NoError(t, err)
		defer l.Close()
	}
	require.Len(t, listening(), len(before)+2, "this test can tell listeners")
}

// A path longer than a Unix socket's name may be is no problem without sockets,
// and neither is one that looks like a pattern.
func TestLongAndOddPath(t *testing.T) {
	cfg := Config{Dir: filepath.Join(t.TempDir(), strings.Repeat("l[o*n] g%2f/", 40), "state")}
	for range 2 {
		s := open(t, cfg)
		put(t, s, "a", "1")
		require.NoError(t, s.Close())
	}
}

func TestT19_LogHoldsNoValues(t *testing.T) {
	var log bytes.Buffer
	cfg := inDir(t)
	cfg.Log = slog.New(slog.NewTextHandler(&lockedWriter{w: &log}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := open(t, cfg)
	put(t, s, "a", "canary-4711")
	_, err := s.Put(t.Context(), "big", bytes.Repeat([]byte("canary-4711"), 1<<18))
	require.Error(t, err, "2.9 MB are too much for one value")
	require.NoError(t, s.Close())
	require.Contains(t, log.String(), "starting an etcd server")
	require.NotContains(t, log.String(), "canary-4711")
}

func TestQuietStartAndStop(t *testing.T) {
	var log bytes.Buffer
	cfg := inDir(t)
	cfg.Log = slog.New(slog.NewTextHandler(&lockedWriter{w: &log}, nil))
	for range 2 {
		s := open(t, cfg)
		put(t, s, "a", "1")
		require.NoError(t, s.Close())
	}
	require.Empty(t, log.String())
}

type lockedWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func TestT30_FilesArePrivate(t *testing.T) {
	cfg := inDir(t)
	s := open(t, cfg)
	put(t, s, "a", "1")
	var names []string
	require.NoError(t, filepath.WalkDir(cfg.Dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, path)
		names = append(names, d.Name())
		return nil
	}))
	require.True(t, slices.Contains(names, "db"), "%v", names)
}
