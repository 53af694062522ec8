package trusted

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nestboot/nestboot/store"
)

const (
	// pollEvery is how often files are looked at: a revocation acts within a
	// second.
	pollEvery = 500 * time.Millisecond
	// askEvery is how often Run looks which addresses are due.
	askEvery = 5 * time.Second
	// fetches is how many addresses are asked at a time.
	fetches = 4
	// writeEvery is how often uses are written, and failed removals again.
	writeEvery = 5 * time.Second
	// remember is for how long a refusal can say that an entry was removed, and
	// maxGraves of how many.
	remember  = 90 * 24 * time.Hour
	maxGraves = 100
)

// Run reads revocation lists when they change, writes down who used which
// entry and what could not be written before, until ctx ends; then it writes
// what is left and returns.
func (t *Trusted) Run(ctx context.Context) {
	var loops sync.WaitGroup
	loops.Go(func() {
		every(ctx, pollEvery, func(ctx context.Context) {
			t.readFiles(ctx, &loops) // none waits for a large one
			t.tellStale(ctx)
		})
	})
	loops.Go(func() { every(ctx, askEvery, t.askURLs) })
	loops.Go(func() { every(ctx, writeEvery, t.upkeep) })
	loops.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	t.upkeep(last)
}

func every(ctx context.Context, period time.Duration, do func(context.Context)) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		do(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// readFiles begins to read the files that changed.
func (t *Trusted) readFiles(ctx context.Context, reading *sync.WaitGroup) {
	for _, m := range t.all.Load().live {
		if m.spec.CRL != nil && m.spec.CRL.File != "" {
			reading.Go(func() { t.refreshFile(ctx, m) })
		}
	}
}

// tellStale tells when a list has ended: its machines' connections are to be
// closed.
func (t *Trusted) tellStale(ctx context.Context) {
	now := t.cfg.Now()
	for _, m := range t.all.Load().live {
		if m.spec.CRL == nil {
			continue
		}
		reasons := m.staleReasons(now)
		stale := len(reasons) > 0
		if stale && !m.wasStale {
			t.log.WarnContext(ctx, "there is no current revocation list", "stage", "trust", "name", m.spec.Name, "err", strings.Join(reasons, "; "), "then", m.spec.CRL.Stale)
			t.bell.ring()
		}
		m.wasStale = stale
		soon := slices.ContainsFunc(m.sortedLists(), func(l *list) bool { return l.endsSoon(now) })
		if soon && !m.wasSoon {
			t.log.WarnContext(ctx, "a revocation list ends soon and there is no newer one yet: nestctl trust show", "stage", "trust", "name", m.spec.Name)
		}
		m.wasSoon = soon
	}
}

func (t *Trusted) askURLs(ctx context.Context) {
	now := t.cfg.Now()
	free := make(chan struct{}, fetches)
	var asked sync.WaitGroup
	for _, m := range t.all.Load().live {
		if m.spec.CRL == nil || m.spec.CRL.URL == "" || !m.source.due(now) {
			continue
		}
		free <- struct{}{}
		asked.Go(func() {
			defer func() { <-free }()
			t.refreshURL(ctx, m)
		})
	}
	asked.Wait()
}

// upkeep writes what is to be written. What fails is tried again next time.
func (t *Trusted) upkeep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	t.writing.Lock()
	defer t.writing.Unlock()
	for _, g := range t.all.Load().gone {
		if g.saved {
			continue
		}
		if err := t.saveRemoval(ctx, g.member); err != nil {
			t.log.ErrorContext(ctx, "a removal was not written down; trying again", "stage", "trust", "name", g.spec.Name, "err", err)
			return
		}
		t.log.InfoContext(ctx, "a removal is written down now", "stage", "trust", "name", g.spec.Name)
	}
	if err := t.undoAdds(ctx); err != nil {
		t.log.ErrorContext(ctx, "an addition that failed was not cleaned up; trying again", "stage", "trust", "err", err)
		return
	}
	if err := t.flushUses(ctx); err != nil {
		t.log.DebugContext(ctx, "uses of trusted certificates are kept in memory until they can be written down", "stage", "trust", "err", err)
		return
	}
	t.forgetGraves(ctx)
}

// used is what the store keeps of an entry's uses.
type used struct {
	Count int64 `json:"count"`
	By    []Use `json:"by"`
	// Others are Entry.Others.
	Others []Use `json:"others,omitempty"`
}

// flushUses writes what Used took down. The caller holds t.writing, so that an
// entry that is removed leaves none behind.
func (t *Trusted) flushUses(ctx context.Context) error {
	for _, m := range t.all.Load().live {
		u := &m.uses
		u.mu.Lock()
		value, err := json.Marshal(used{u.count, u.list, u.others})
		dirty := u.dirty
		u.dirty = false
		u.mu.Unlock()
		if !dirty {
			continue
		}
		if err == nil {
			_, err = t.cfg.Store.Put(ctx, useKey(m.id), value)
		}
		if err != nil {
			u.mu.Lock()
			u.dirty = true
			u.mu.Unlock()
			return fmt.Errorf("write uses of %s: %w", m.title(), err)
		}
	}
	return nil
}

func (t *Trusted) loadUses(ctx context.Context) error {
	for _, m := range t.all.Load().live {
		entries, err := t.cfg.Store.List(ctx, useKey(m.id))
		if err != nil {
			return fmt.Errorf("read uses: %w", err)
		}
		for _, e := range entries {
			var u used
			if e.Key != useKey(m.id) {
				continue // of an entry whose number begins so
			}
			if err := json.Unmarshal(e.Value, &u); err != nil {
				t.log.WarnContext(ctx, "the uses of a trusted certificate are damaged and are forgotten", "stage", "trust", "name", m.spec.Name, "err", err)
				continue
			}
			m.uses.count, m.uses.list, m.uses.others = u.Count, u.By, u.Others
		}
	}
	return nil
}

// forgetGraves ends the memory of what was removed long ago.
func (t *Trusted) forgetGraves(ctx context.Context) {
	now, gone := t.cfg.Now(), t.all.Load().gone
	var old []int64
	for i, g := range gone {
		if g.saved && (now.Sub(g.at) > remember || i < len(gone)-maxGraves) {
			old = append(old, g.id)
		}
	}
	for i, id := range old {
		if _, err := t.cfg.Store.Commit(ctx, store.Txn{Then: []store.Op{store.Remove(recordKey(id))}}); err != nil {
			t.log.DebugContext(ctx, "a removed entry was not forgotten; trying again", "stage", "trust", "id", id, "err", err)
			old = old[:i]
			break
		}
	}
	if len(old) > 0 {
		t.replace(func(all *catalogue) *catalogue { return all.forget(old) })
	}
}
