package pki

import (
	"bytes"
	"context"
	"crypto/rsa"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nestboot/nestboot/store"
	"github.com/stretchr/testify/require"
)

// start is when the tests' clocks begin.
var start = time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)

// clock is a wall clock that only tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// logbook is a log that tests read and wait for.
type logbook struct {
	mu    sync.Mutex
	text  bytes.Buffer
	lines chan string // drops what nobody waits for
}

func newLogbook() *logbook { return &logbook{lines: make(chan string, 100)} }

func (l *logbook) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.lines <- string(line):
	default:
	}
	return l.text.Write(line)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logbook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func openStore(t testing.TB, dir string) *store.Store {
	t.Helper()
	return openStoreWith(t, store.Config{Dir: dir, Reserve: 1})
}

func openStoreWith(t testing.TB, cfg store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// firstStart are the files that one first start has made: rsa keys take their
// time.
var firstStart = sync.OnceValues(func() (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "pki")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s, err := store.Open(context.Background(), store.Config{Dir: filepath.Join(dir, "store"), Reserve: 1})
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }()
	if _, err := Open(context.Background(), nameConfig(Config{
		Dir: filepath.Join(dir, "pki"), Store: s, Now: (&clock{now: start}).Now,
	})); err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, name := range allFiles() {
		if files[name], err = os.ReadFile(filepath.Join(dir, "pki", name)); err != nil {
			return nil, err
		}
	}
	return files, nil
})

func allFiles() []string {
	return append(issuerFiles(), "server.key", "server.pem", "server-ec.key", "server-ec.pem")
}

func nameConfig(cfg Config) Config {
	cfg.Hosts = []string{"ipxe.example.net", "boot.example.net"}
	cfg.Addrs = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	return cfg
}

// madeDir returns a directory with the first files of a first start.
func madeDir(t testing.TB, files ...string) string {
	t.Helper()
	made, err := firstStart()
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "pki")
	require.NoError(t, os.Mkdir(dir, 0o700))
	for _, name := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), made[name], 0o600))
	}
	return dir
}

// testConfig describes an authority whose files exist, at the time start.
func testConfig(t testing.TB) (Config, *clock) {
	t.Helper()
	c := &clock{now: start}
	return nameConfig(Config{Dir: madeDir(t, allFiles()...), Store: openStore(t, t.TempDir()), Now: c.Now, NewKey: nextKey}), c
}

func openAuthority(t testing.TB, cfg Config) *Authority {
	t.Helper()
	a, err := Open(context.Background(), cfg)
	require.NoError(t, err)
	return a
}

// someKeys are handed out in turn: making them takes its time. No test holds on
// to as many.
var someKeys = sync.OnceValues(func() (keys [16]*rsa.PrivateKey, err error) {
	for n := range keys {
		if keys[n], err = newKey(); err != nil {
			break
		}
	}
	return keys, err
})

var keysTaken atomic.Int64

func nextKey() (*rsa.PrivateKey, error) {
	keys, err := someKeys()
	return keys[int(keysTaken.Add(1))%len(keys)], err
}

// plainDir is a directory of its own.
func plainDir(dir string) keyDir { return keyDir{dir: dir, rsa: nextKey} }

func newest(a *Authority) *generation { return a.current.Load().newest() }
