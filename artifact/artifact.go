// Package artifact keeps artifact sets: what an operator creates once and hands
// to a rack. It knows each set's life from its making to its end, keeps the
// certificate and key that its machines share, and decides which of its files
// may leave over which protocol.
//
// The bytes of a file are made by package ipxebuild when it is asked for, the
// certificates by package pki; this package decides nothing about what a
// machine boots. Begin at Open, Sets.Create and Sets.File; the binaries that
// sets are made of are imported by OpenBases.
package artifact

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nestboot/nestboot/ipxebuild"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/vault"
	"github.com/nestboot/nestboot/store"
)

// Config says where sets live and what they are made of. Dir, URL, Store,
// Authority, Log and Now are required.
type Config struct {
	Dir       string // certificates and keys; made with mode 0700
	URL       string // https://host[:port] of the name that requests client certificates, for generation 1
	Store     *store.Store
	Authority *pki.Authority
	Stock     *ipxebuild.Stock // of OpenBases; nil: there are no bases
	Vault     *vault.Vault     // writes certificates, keys and the secret; nil: in clear
	Log       *slog.Logger
	Now       func() time.Time
}

// Sets are all artifact sets of an installation. Its methods may be called
// concurrently; those that a machine waits for read memory only.
type Sets struct {
	cfg    Config
	secret pki.Secret // of download addresses
	cache  *cache
	stock  atomic.Pointer[ipxebuild.Stock]
	steps  func(step string) // tests end the process in it; may be nil

	claiming sync.Mutex // held from the look for a free name until the set is in the catalogue

	mu     sync.RWMutex
	byID   map[int64]*member
	byName map[string]*member
}

// member is one set: a version of it at a time.
type member struct {
	id      int64
	work    sync.Mutex // held while the set is made, changed or deleted
	current atomic.Pointer[version]
	uses    uses
	retry   backoff     // of what check does; nobody else touches it
	unsaved atomic.Bool // the store does not have the current record yet
}

// Open loads the sets, and finishes what a former run of this process did not:
// a set that was half made is undone, one that was half deleted is deleted. A
// set that cannot be loaded is kept and says why; the others are served.
func Open(ctx context.Context, cfg Config) (*Sets, error) {
	s := &Sets{cfg: cfg, cache: newCache(cacheLimit), byID: map[int64]*member{}, byName: map[string]*member{}}
	if err := s.open(ctx); err != nil {
		return nil, fmt.Errorf("artifact sets: %w", err)
	}
	return s, nil
}

func (s *Sets) open(ctx context.Context) (err error) {
	s.stock.Store(s.cfg.Stock)
	if err := vault.Dir(s.cfg.Dir); err != nil {
		return err
	}
	all, err := s.records(ctx)
	if err != nil {
		return err
	}
	var made bool
	if s.secret, made, err = openSecret(s.cfg.Vault, s.cfg.Dir); err != nil {
		return err
	}
	if made && len(all) > 0 {
		s.cfg.Log.WarnContext(ctx, "the secret of download addresses was missing: all addresses of sets have changed; restore the file from a backup if they were handed out",
			"file", filepath.Join(s.cfg.Dir, secretFile), "sets", len(all))
	}
	for _, r := range all {
		m := &member{id: r.ID}
		s.enter(m, r)
		if r.State == ready {
			m.current.Store(s.load(ctx, r))
			s.noteMove(ctx, m, r)
			continue
		}
		s.cfg.Log.WarnContext(ctx, "a set was left half made or half deleted; it is removed", "set", r.Spec.Name, "state", r.State)
		r.State = deleting
		m.current.Store(&version{rec: r})
		s.finishLater(ctx, m)
	}
	return s.loadUses(ctx)
}

func (s *Sets) step(name string) {
	if s.steps != nil {
		s.steps(name)
	}
}

// enter puts a set into the catalogue.
func (s *Sets) enter(m *member, r record) {
	m.current.Store(&version{rec: r})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byID[r.ID], s.byName[r.Spec.Name] = m, m
}

// leave takes a set that is gone out of the catalogue.
func (s *Sets) leave(m *member, r record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, r.ID)
	if s.byName[r.Spec.Name] == m { // its name may have a new set by now
		delete(s.byName, r.Spec.Name)
	}
}

func (s *Sets) numbered(id int64) *member {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byID[id]
}

func (s *Sets) named(name string) *member {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byName[name]
}

// members are all sets in the order of their numbers.
func (s *Sets) members() []*member {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []*member
	for _, m := range s.byID {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *member) int { return int(a.id - b.id) })
	return all
}
