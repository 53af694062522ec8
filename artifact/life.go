package artifact

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/nestboot/nestboot/ipxebuild"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

const (
	// changeTimeout bounds making and deleting a set; neither ends with the
	// request that asked for it.
	changeTimeout = 30 * time.Second
	// storeTimeout bounds each write: whoever deletes a set waits behind it.
	storeTimeout = 5 * time.Second
)

// Create makes a set and returns it when it can be used. What is wrong with
// spec is an *Invalid.
func (s *Sets) Create(ctx context.Context, spec Spec) (Info, error) {
	stock := s.stock.Load()
	versions := versionsOf(stock)
	key := s.cfg.Authority.MachineKey()
	spec = spec.complete(versions, key)
	if err := spec.check(versions, key, s.cfg.Now(), s.cfg.Authority.End()); err != nil {
		return Info{}, err
	}
	cfg, err := s.config(spec, s.newest(), credential{})
	if err != nil {
		return Info{}, err
	}
	_, err = stock.Set(cfg) // what only ipxebuild knows
	if err == nil && !spec.Keyless {
		err = stock.CheckKeyType(ipxebuild.KeyType(key), spec.Base)
	}
	if err != nil {
		return Info{}, &Invalid{[]Fault{{"base", CodeInvalid, oneLine(err)}}}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
	defer cancel()
	m, err := s.claim(ctx, spec)
	if err != nil {
		return Info{}, err
	}
	defer m.work.Unlock()
	s.step("claimed")
	r := m.current.Load().rec
	v, err := s.make(ctx, r)
	if err != nil {
		r.State = deleting
		m.current.Store(&version{rec: r})
		return Info{}, errors.Join(fmt.Errorf("make set %s: %w", spec.Name, err), s.finish(ctx, m))
	}
	m.current.Store(v)
	s.cfg.Log.InfoContext(ctx, "set was created", "set", spec.Name, "id", r.ID, "exposure", spec.Exposure)
	return s.info(m), nil
}

// make gets a claimed set its certificate, and marks it ready. Certificates of
// former sets with this name end here at the latest: whoever holds one is not
// a machine of this set.
func (s *Sets) make(ctx context.Context, r record) (*version, error) {
	if _, err := s.cfg.Authority.RevokeSet(ctx, r.Spec.Name); err != nil {
		return nil, err
	}
	var c credential
	var err error
	if !r.Spec.Keyless {
		if c, err = s.issue(ctx, r, s.newest()); err != nil {
			return nil, err
		}
	}
	s.step("written")
	r.State = ready
	if r, err = s.carry(ctx, r, c); err != nil {
		return nil, err
	}
	v, err := s.build(r, c)
	if err != nil {
		return nil, err
	}
	if err := s.put(ctx, r, false, store.Unchanged(recordKey(r.ID), r.revision)); err != nil {
		return nil, err
	}
	s.step("ready")
	return v, nil
}

// Update changes over which protocols a set is served. What is withdrawn is
// withdrawn at once, also when Update fails because that cannot be written
// down; Run tries that again.
func (s *Sets) Update(ctx context.Context, id int64, exposure []Protocol) (Info, error) {
	invalid := &Invalid{}
	checkExposure(invalid, exposure)
	if err := invalid.orNil(); err != nil {
		return Info{}, err
	}
	m := s.numbered(id)
	if m == nil {
		return Info{}, ErrUnknown
	}
	m.work.Lock()
	defer m.work.Unlock()
	v := m.current.Load()
	switch {
	case v.rec.State != ready:
		return Info{}, ErrBusy
	case v.rec.damaged != nil:
		return Info{}, fmt.Errorf("set %s: %w", v.rec.Spec.Name, v.rec.damaged)
	}
	next := v.copy()
	next.rec.Spec.Exposure = append([]Protocol{}, exposure...)
	now := s.withdraw(m, v, exposure)
	narrower := now != v
	if err := s.put(context.WithoutCancel(ctx), next.rec, narrower); err != nil {
		if narrower {
			m.unsaved.Store(true)
			err = &pki.Unsaved{What: "what set " + v.rec.Spec.Name + " was exposed by is withdrawn", Err: err}
		}
		return Info{}, err
	}
	m.unsaved.Store(false)
	if !s.replace(m, now, next) {
		return Info{}, ErrBusy
	}
	s.cfg.Log.InfoContext(ctx, "set's exposure was changed", "set", v.rec.Spec.Name, "exposure", exposure, "means", next.rec.Spec.Consequence())
	return s.info(m), nil
}

// withdraw ends what is not in exposure any more, and returns the version that
// is served then: was, if there is nothing to end. The caller holds m.work.
func (s *Sets) withdraw(m *member, was *version, exposure []Protocol) *version {
	next := was.copy()
	kept := slices.DeleteFunc(slices.Clone(next.rec.Spec.Exposure), func(p Protocol) bool { return !slices.Contains(exposure, p) })
	if len(kept) == len(next.rec.Spec.Exposure) {
		return was
	}
	next.rec.Spec.Exposure = kept
	s.replace(m, was, next)
	return next
}

// Delete ends a set: when it returns, its files are served no longer and its
// certificates are refused, on open connections too. That holds also when it
// fails half way: then the set stays listed as deleting, and Run tries again.
// Only what could not be written down, a restart forgets.
func (s *Sets) Delete(ctx context.Context, id int64) (Info, error) {
	m := s.numbered(id)
	if m == nil {
		return Info{}, ErrUnknown
	}
	info := s.info(m)
	s.condemn(m) // at once, whoever holds m.work while it waits for a disk or a step-ca
	s.step("condemned")
	m.work.Lock()
	defer m.work.Unlock()
	if s.numbered(id) == nil { // somebody else has deleted it while we waited
		return Info{}, ErrUnknown
	}
	s.condemn(m) // what was made meanwhile
	info.Status = Deleting
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
	defer cancel()
	if err := s.finish(ctx, m); err != nil {
		return info, err
	}
	info.Status = Deleted
	return info, nil
}

// condemn ends a set in memory. One that is being made is left until it has been:
// nobody was told of it, and its maker holds m.work.
func (s *Sets) condemn(m *member) {
	s.mu.RLock() // its name must not be another set's by now
	defer s.mu.RUnlock()
	if s.byID[m.id] != m {
		return
	}
	for v := m.current.Load(); v.rec.State == ready; v = m.current.Load() {
		r := v.rec
		r.State = deleting
		s.replace(m, v, &version{rec: r})
	}
	if r := m.current.Load().rec; r.State == deleting {
		s.cfg.Authority.CondemnSet(r.Spec.Name)
	}
}

// finish does what is left to do of a deletion; it may be done again. The
// caller holds m.work.
func (s *Sets) finish(ctx context.Context, m *member) error {
	r := m.current.Load().rec
	marked := s.put(ctx, r, true)
	s.step("marked")
	// Tried whatever became of the mark: it holds in memory at once.
	_, revoked := s.cfg.Authority.RevokeSet(ctx, r.Spec.Name)
	if err := errors.Join(marked, revoked); err != nil {
		return &pki.Unsaved{What: "set " + r.Spec.Name + " is served no longer and its certificates are refused", Err: err}
	}
	s.step("revoked")
	if err := errors.Join(os.RemoveAll(s.dirOf(r)), syncDir(s.cfg.Dir)); err != nil {
		return fmt.Errorf("delete set %s: %w", r.Spec.Name, err)
	}
	s.step("removed")
	if err := s.erase(ctx, r); err != nil {
		return err
	}
	s.leave(m, r)
	s.cfg.Log.InfoContext(ctx, "set was deleted", "set", r.Spec.Name, "id", r.ID)
	return nil
}
