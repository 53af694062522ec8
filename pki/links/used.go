package links

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

// maxUsers is how many machines a link remembers: the last ones.
const maxUsers = 100

// Use is the last time that a machine came with a link.
type Use struct {
	Machine string    `json:"machine"` // UUID
	At      time.Time `json:"at"`
}

// tally counts the uses of a link. It is known at once and written by Run, so
// that no machine waits for a disk.
type tally struct {
	Uses int64     `json:"uses"`
	Last time.Time `json:"last"`
	By   []Use     `json:"by,omitempty"`

	dirty bool
}

// Used takes down that a request was answered which showed the token of a link.
// machine is empty where it is not known.
func (l *Links) Used(kind pki.Kind, id int64, machine string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tallies[useKey(kind, id)]
	if t == nil {
		t = &tally{}
		l.tallies[useKey(kind, id)] = t
	}
	t.Uses, t.dirty = t.Uses+1, true
	if at.After(t.Last) {
		t.Last = at.UTC()
	}
	if machine == "" {
		return
	}
	t.By = slices.DeleteFunc(t.By, func(u Use) bool { return u.Machine == machine })
	t.By = slices.Insert(t.By, 0, Use{machine, at.UTC()})
	t.By = t.By[:min(len(t.By), maxUsers)]
}

func (l *Links) withUses(link Link) Link {
	l.mu.RLock()
	defer l.mu.RUnlock()
	t := l.tallies[useKey(link.Kind, link.ID)]
	if t == nil {
		return link
	}
	last := t.Last
	link.Uses, link.LastUsed, link.UsedBy = t.Uses, &last, slices.Clone(t.By)
	return link
}

func (l *Links) loadUses(ctx context.Context) error {
	entries, err := l.cfg.Store.List(ctx, usePrefix)
	if err != nil {
		return fmt.Errorf("read uses of urls: %w", err)
	}
	for _, e := range entries {
		t := &tally{}
		if err := json.Unmarshal(e.Value, t); err != nil {
			l.cfg.Log.WarnContext(ctx, "the uses of a url are damaged and are forgotten", "key", e.Key, "err", err)
			continue
		}
		l.tallies[e.Key] = t
	}
	return nil
}

// flushUses writes what Used took down.
func (l *Links) flushUses(ctx context.Context) error {
	dirty := l.dirtyUses()
	if len(dirty) == 0 {
		return nil
	}
	live := l.liveByUse()
	for i, key := range dirty {
		r, ok := live[key]
		if !ok {
			l.forgetUses(key)
			continue
		}
		if err := l.flushUse(ctx, key, r); err != nil {
			l.markDirty(dirty[i:])
			return err
		}
	}
	return nil
}

func (l *Links) liveByUse() map[string]record {
	live := map[string]record{}
	for _, kind := range kinds() {
		for _, r := range l.live(kind) {
			live[useKey(kind, r.ID)] = r
		}
	}
	return live
}

// forgetUsesOfOthers forgets the uses of links that are gone.
func (l *Links) forgetUsesOfOthers() {
	live := l.liveByUse()
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.tallies, func(key string, _ *tally) bool { _, ok := live[key]; return !ok })
}

// dirtyUses returns what is to be written, and takes it for written.
func (l *Links) dirtyUses() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(l.tallies)) {
		if t := l.tallies[key]; t.dirty {
			t.dirty = false
			keys = append(keys, key)
		}
	}
	return keys
}

func (l *Links) markDirty(keys []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		if t := l.tallies[key]; t != nil {
			t.dirty = true
		}
	}
}

func (l *Links) forgetUses(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.tallies, key)
}

// flushUse writes nothing for a link that is revoked meanwhile: the revocation
// has removed its uses.
func (l *Links) flushUse(ctx context.Context, key string, r record) error {
	l.mu.RLock()
	value, err := json.Marshal(l.tallies[key])
	l.mu.RUnlock()
	if err != nil {
		return fmt.Errorf("encode uses of url: %w", err)
	}
	_, err = l.cfg.Store.Commit(ctx, store.Txn{If: []store.Condition{r.unchanged()}, Then: []store.Op{store.Set(key, value)}})
	if errors.Is(err, store.ErrConflict) {
		l.forgetUses(key)
		return nil
	}
	if err != nil {
		return fmt.Errorf("write uses of url: %w", err)
	}
	return nil
}
