package links

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/vault"
	"github.com/nestboot/nestboot/store"
)

// start is when the tests' clocks begin.
var start = time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)

const (
	uuidA = "4c4c4544-0042-3510-8052-b4c04f564433"
	uuidB = "4c4c4544-0042-3510-8052-b4c04f564434"
)

// world is one installation, which can be started again.
type world struct {
	t     testing.TB
	dir   string
	store *store.Store
	vault *vault.Vault
	gone  map[int64]bool // sets that do not exist

	mu  sync.Mutex
	at  time.Time
	log bytes.Buffer
}

const enough = -1 // no reserve of space

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), at: start, gone: map[int64]bool{}}
	w.reopen(enough)
	return w
}

// reopen starts the store again, with another reserve of space.
func (w *world) reopen(reserve int64) {
	w.t.Helper()
	if w.store != nil {
		require.NoError(w.t, w.store.Close())
	}
	s, err := store.Open(w.t.Context(), store.Config{Dir: filepath.Join(w.dir, "store"), Reserve: reserve})
	require.NoError(w.t, err)
	w.store = s
	w.t.Cleanup(func() { _ = s.Close() })
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

func (w *world) wait(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = w.at.Add(d)
}

func (w *world) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(line)
}

func (w *world) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

func (w *world) config() Config {
	return Config{
		Store: w.store, Vault: w.vault, Path: filepath.Join(w.dir, "links.secret"), Now: w.now,
		Exists: func(set int64) bool { return !w.gone[set] },
		Log:    slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

func (w *world) open() *Links {
	w.t.Helper()
	l, err := Open(w.t.Context(), w.config())
	require.NoError(w.t, err)
	return l
}

func create(t *testing.T, l *Links, spec Spec) (Link, string) {
	t.Helper()
	link, err := l.Create(t.Context(), spec)
	require.NoError(t, err)
	token := l.Token(link).Encode()
	require.Len(t, token, 43)
	return link, token
}

// fill writes n records at once, as Create would one by one.
func (w *world) fill(l *Links, n int, spec Spec, edit func(n int, r *record)) {
	w.t.Helper()
	var txn store.Txn
	for i := range n {
		r := record{ID: int64(1_000_000 + i), Spec: spec, Created: start, digest: digestOf(pki.NewSecret())}
		r.Name, r.Protocols = fmt.Sprint(i), []string{HTTPS}
		edit(i, &r)
		op, err := r.op()
		require.NoError(w.t, err)
		txn.Then = append(txn.Then, op)
		if len(txn.Then) < 1000 && i < n-1 {
			continue
		}
		revision, err := w.store.Commit(w.t.Context(), txn)
		require.NoError(w.t, err)
		require.NoError(w.t, l.mirror.Wait(bounded(w.t), revision))
		txn = store.Txn{}
	}
}

// code is why Find or Good refuse, or "".
func code(t require.TestingT, err error) string {
	if err == nil {
		return ""
	}
	var refusal *pki.Refusal
	require.True(t, errors.As(err, &refusal), "%v", err)
	return refusal.Code
}

func found(t require.TestingT, l *Links, kind pki.Kind, token, over string, at time.Time) string {
	_, _, err := l.Find(kind, token, over, at)
	return code(t, err)
}

// bounded is a context for what has to come soon.
func bounded(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func later(d time.Duration) *time.Time {
	at := start.Add(d)
	return &at
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return string(b)
}
