package artifact

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"
)

// maxUsers is how many machines a set remembers: as many as it can be limited to.
// Of what falls out the generation stays known, because media that are still in
// use keep the root that they carry alive.
const maxUsers = maxMachines

// Use is the last time that a machine booted with a set.
type Use struct {
	Machine    string    `json:"machine"` // UUID; empty: one that is not remembered
	At         time.Time `json:"at"`
	Generation int       `json:"generation,omitzero"` // of the trust root that it came by; 0: not known
}

// uses are the last uses of a set, the latest first. They are known at once and
// written by Run, so that no machine waits for a disk.
type uses struct {
	mu     sync.Mutex
	list   []Use
	others []Use // of machines that fell out of list: the last of each generation, by generation
	dirty  bool
}

func (u *uses) add(use Use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.list = slices.DeleteFunc(u.list, func(x Use) bool { return x.Machine == use.Machine })
	u.list, u.dirty = slices.Insert(u.list, 0, use), true
	if len(u.list) > maxUsers {
		u.forget()
	}
}

// forget lets the oldest use of the newest generation fall out. Machines on older
// media are those that somebody will have to find.
func (u *uses) forget() {
	oldest := 0
	for i, use := range u.list {
		if use.Generation >= u.list[oldest].Generation {
			oldest = i
		}
	}
	out := u.list[oldest]
	u.list = slices.Delete(u.list, oldest, oldest+1)
	i, found := slices.BinarySearchFunc(u.others, out.Generation, func(o Use, g int) int { return o.Generation - g })
	if !found {
		u.others = slices.Insert(u.others, i, Use{Generation: out.Generation})
	}
	if out.At.After(u.others[i].At) {
		u.others[i].At = out.At
	}
}

func (u *uses) all() (list, others []Use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.list), slices.Clone(u.others)
}

// take returns what is to be written, nil if nothing is.
func (u *uses) take() []Use {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.dirty {
		return nil
	}
	u.dirty = false
	return slices.Concat(u.list, u.others)
}

func (u *uses) giveBack() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.dirty = true
}

// Used takes down that a machine was answered which came with the set's
// certificate, to the host name of a generation.
func (s *Sets) Used(set, machine string, generation int, at time.Time) {
	if m := s.named(set); m != nil {
		m.uses.add(Use{machine, at.UTC(), generation})
	}
}

// loadUses reads the uses of all sets that s knows.
func (s *Sets) loadUses(ctx context.Context) error {
	entries, err := s.cfg.Store.List(ctx, usePrefix)
	if err != nil {
		return fmt.Errorf("read uses of artifact sets: %w", err)
	}
	stored := map[string][]byte{}
	for _, e := range entries {
		stored[e.Key] = e.Value
	}
	for _, m := range s.members() {
		value, ok := stored[useKey(m.id)]
		if !ok {
			continue
		}
		var list []Use
		if err := json.Unmarshal(value, &list); err != nil {
			s.cfg.Log.WarnContext(ctx, "the uses of an artifact set are damaged and are forgotten", "id", m.id, "err", err)
			continue
		}
		for i, u := range list {
			list[i].Generation = max(u.Generation, 1) // from before there were several
		}
		named := len(list)
		if i := slices.IndexFunc(list, func(u Use) bool { return u.Machine == "" }); i >= 0 {
			named = i
		}
		m.uses.list, m.uses.others = list[:named:named], list[named:]
	}
	return nil
}

// flushUses writes what Used took down.
func (s *Sets) flushUses(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	for _, m := range s.members() {
		if err := s.flushMember(ctx, m); err != nil {
			return fmt.Errorf("write uses of artifact set %d: %w", m.id, err)
		}
	}
	return nil
}

func (s *Sets) flushMember(ctx context.Context, m *member) error {
	list := m.uses.take()
	if list == nil {
		return nil
	}
	m.work.Lock() // a set that is being deleted must not leave them behind
	defer m.work.Unlock()
	if m.current.Load().rec.State != ready {
		return nil
	}
	value, err := json.Marshal(list)
	if err == nil {
		_, err = s.cfg.Store.Put(ctx, useKey(m.id), value)
	}
	if err != nil {
		m.uses.giveBack()
	}
	return err
}
