package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Mirror is a copy in memory of the keys below a prefix, kept by watch. Reading
// it takes well below a microsecond, no lock and no etcd, and goes on, with the
// last state seen, after the mirror's context has ended, after Close, and after
// etcd has died.
//
// A mirror trails the store by a moment. A reader that must see its own write
// calls Wait with the revision that the write returned.
type Mirror struct {
	prefix  string
	current atomic.Pointer[snapshot]
	// stopped is closed when the mirror is kept no longer.
	stopped chan struct{}
}

// snapshot never changes. Its channels are closed when it is replaced: advanced
// by any newer revision, changed by one that touched the mirror's keys.
type snapshot struct {
	pages             pages
	revision          int64
	advanced, changed chan struct{}
}

// mirrorRetry is the pause before a mirror that lost its watch loads again.
const mirrorRetry = time.Second

// Mirror loads the keys that begin with prefix and keeps them up to date until
// ctx ends or the store closes.
func (s *Store) Mirror(ctx context.Context, prefix string) (*Mirror, error) {
	m := &Mirror{prefix: prefix, stopped: make(chan struct{})}
	m.current.Store(&snapshot{advanced: make(chan struct{}), changed: make(chan struct{})})
	if err := m.load(ctx, s); err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	if !s.begin() {
		return nil, fmt.Errorf("mirror %s: %w", prefix, s.life.reason())
	}
	go func() {
		defer s.tasks.Done()
		defer close(m.stopped)
		ctx, cancel := s.live(ctx)
		defer cancel()
		m.keep(ctx, s)
	}()
	return m, nil
}

func (m *Mirror) load(ctx context.Context, s *Store) error {
	entries, revision, err := s.list(ctx, m.prefix)
	if err != nil {
		return err
	}
	m.publish(newPages(entries), revision, true)
	return nil
}

// keep follows the store. When etcd drops the watch, because this process slept
// through a compaction, it loads again.
func (m *Mirror) keep(ctx context.Context, s *Store) {
	for {
		m.follow(ctx, s)
		select {
		case <-ctx.Done():
			return
		case <-time.After(mirrorRetry):
		}
		s.log.Warn("mirror lost its watch, loading again", "prefix", m.prefix)
		if err := m.load(ctx, s); err != nil && !errors.Is(err, ErrUnavailable) {
			s.log.Warn("mirror can not be loaded, trying again", "prefix", m.prefix, "err", err)
		}
	}
}

// follow watches all keys, not only the mirror's, so that the mirror's revision
// advances with every write and Wait needs no help from etcd.
func (m *Mirror) follow(ctx context.Context, s *Store) {
	prefix := []byte(m.prefix)
	for resp := range s.events(ctx, "", m.Revision()+1) {
		p := m.current.Load().pages
		var d *draft // nil: nothing of ours so far
		for _, ev := range resp.Events {
			if !bytes.HasPrefix(ev.Kv.Key, prefix) {
				continue
			}
			if d == nil {
				d = p.draft()
			}
			if c := newChange(ev); c.Deleted {
				d.remove(c.Key)
			} else {
				d.set(c.Entry)
			}
		}
		if d != nil {
			p = d.pages
		}
		if n := len(resp.Events); n > 0 {
			// Not the header's revision: it may be ahead of the events.
			m.publish(p, resp.Events[n-1].Kv.ModRevision, d != nil)
		}
	}
}

// publish replaces the snapshot. Only one goroutine publishes.
func (m *Mirror) publish(p pages, revision int64, touched bool) {
	old := m.current.Load()
	next := &snapshot{pages: p, revision: revision, advanced: make(chan struct{}), changed: old.changed}
	if touched {
		next.changed = make(chan struct{})
	}
	m.current.Store(next)
	close(old.advanced)
	if touched {
		close(old.changed)
	}
}

// Get returns the entry of key.
func (m *Mirror) Get(key string) (Entry, bool) {
	return m.current.Load().pages.get(key)
}

// List returns the entries whose keys begin with prefix, sorted by key, all as
// of one revision.
func (m *Mirror) List(prefix string) []Entry {
	return m.current.Load().pages.list(prefix)
}

// Revision returns the revision of the store that the mirror has reached.
func (m *Mirror) Revision() int64 {
	return m.current.Load().revision
}

// Wait returns when the mirror has reached revision. It fails when ctx ends
// first, and with ErrUnavailable when the mirror is kept no longer.
func (m *Mirror) Wait(ctx context.Context, revision int64) error {
	for {
		now := m.current.Load()
		if now.revision >= revision {
			return nil
		}
		select {
		case <-now.advanced:
		case <-ctx.Done():
			return fmt.Errorf("wait for revision %d of %s: %w", revision, m.prefix, ctx.Err())
		case <-m.stopped:
			if m.Revision() >= revision {
				return nil
			}
			return fmt.Errorf("wait for revision %d of %s: %w: mirror has stopped", revision, m.prefix, ErrUnavailable)
		}
	}
}

// Changed returns a channel that is closed by the next change below the prefix.
// Take it before reading, so that no change is missed between the two. It stays
// open when the mirror stops.
func (m *Mirror) Changed() <-chan struct{} {
	return m.current.Load().changed
}
