// Package trusted keeps the authorities and the single certificates of others
// that machines may prove themselves with: a customer's own CA, or a pinned
// certificate or key. It says whom a presented certificate belongs to, until
// the moment at which its entry is removed, it ends, or its authority's
// revocation list names it.
//
// It issues nothing, and it asks no OCSP responder: revocation is by removal
// here, or by the authority's list (CRL), as a file or by its address. What a
// machine boots is decided elsewhere. It holds no secret: a private key among
// what is registered is refused.
//
// Begin at Open, Trusted.Add and Trusted.Verify.
package trusted

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nestboot/nestboot/store"
)

// Config says where entries are kept.
type Config struct {
	// Store keeps the entries and who used them, below "trusted". Required.
	Store *store.Store
	// Dir holds the last good revocation lists, so that a restart does not
	// depend on where they come from. It is made with mode 0700. Required.
	Dir string
	// Log receives one line per change; nil: nothing is logged.
	Log *slog.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Fetch gets revocation lists by URL; nil: a client that follows no
	// redirect to another host, uses no proxy and doesn't speak to loopback or
	// link-local addresses.
	Fetch *http.Client
}

// Trusted are all entries. Its methods may be called concurrently; Verify and
// Good read memory only.
type Trusted struct {
	cfg    Config
	log    *slog.Logger
	proofs proofs
	bell   bell
	steps  func(step string) // tests end the process in it; may be nil

	writing sync.Mutex       // held around what a change writes to the store
	undo    map[int64]record // additions that failed, but of which the store may have the record

	parsing sync.Mutex // one large revocation list at a time: it takes its memory

	mu  sync.Mutex // held while the catalogue is replaced
	all atomic.Pointer[catalogue]
}

// ErrUnknown is returned for an entry that does not exist.
var ErrUnknown = errors.New("no such trusted certificate")

// Open loads the entries. One that cannot be read is kept, accepts nobody and
// says why; the others work. Lists that come from a URL are asked for by Run.
func Open(ctx context.Context, cfg Config) (*Trusted, error) {
	if cfg.Store == nil || cfg.Dir == "" {
		return nil, errors.New("trusted certificates: a store and a directory are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Fetch == nil {
		cfg.Fetch = newClient()
	}
	t := &Trusted{cfg: cfg, log: cfg.Log, undo: map[int64]record{}}
	t.bell.ring()
	if err := t.open(ctx); err != nil {
		return nil, fmt.Errorf("trusted certificates: %w", err)
	}
	return t, nil
}

func (t *Trusted) open(ctx context.Context) error {
	if err := openDir(t.cfg.Dir); err != nil {
		return err
	}
	all, err := t.load(ctx)
	if err != nil {
		return err
	}
	t.all.Store(all)
	for _, m := range all.live {
		t.loadLists(ctx, m)
		if m.spec.CRL != nil && m.spec.CRL.File != "" {
			t.refreshFile(ctx, m)
		}
	}
	t.sweepDir(ctx)
	return t.loadUses(ctx)
}

func (t *Trusted) step(name string) {
	if t.steps != nil {
		t.steps(name)
	}
}

// Changed returns a channel that is closed by the next change after which a
// certificate may be refused that was accepted before. Take it before asking.
func (t *Trusted) Changed() <-chan struct{} { return t.bell.next() }

// List returns all entries in the order of their numbers.
func (t *Trusted) List() []Entry {
	now, all := t.cfg.Now(), t.all.Load()
	var list []Entry
	for _, m := range all.live {
		list = append(list, all.entry(m, now))
	}
	for _, g := range all.gone {
		if !g.saved {
			list = append(list, all.entry(g.member, now))
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return int(a.ID - b.ID) })
	return list
}

// Get returns one entry.
func (t *Trusted) Get(id int64) (Entry, bool) {
	all := t.all.Load()
	if m := all.find(id); m != nil {
		return all.entry(m, t.cfg.Now()), true
	}
	return Entry{}, false
}

// bell tells many at once.
type bell struct {
	mu sync.Mutex
	ch chan struct{}
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
	}
	b.ch = make(chan struct{})
}

func (b *bell) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch
}
