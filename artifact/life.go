package artifact

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	// renewBefore is how long before its end a set without an end of its own
	// gets a new certificate, and how long before it a set with one is called
	// expiring. Files are made anew at each request, so machines that boot from
	// the network pick the new certificate up by themselves.
	renewBefore = 30 * 24 * time.Hour
	// checkEvery is how often Run looks at the clock.
	checkEvery = time.Minute
	// writeEvery is how often Run writes down who used which set.
	writeEvery = 5 * time.Second
	// changeTimeout bounds making and deleting a set; neither ends with the
	// request that asked for it.
	changeTimeout = 30 * time.Second
)

// Create makes a set and returns it when it can be used. What is wrong with
// spec is an *Invalid.
func (s *Sets) Create(ctx context.Context, spec Spec) (Info, error) {
	versions := s.versions()
	spec = spec.complete(versions)
	if err := spec.check(versions, s.cfg.Now(), s.cfg.Authority.End()); err != nil {
		return Info{}, err
	}
	if len(s.members()) >= maxSets {
		return Info{}, &Invalid{[]Fault{{"name", CodeInvalid, fmt.Sprintf("there are %d sets already: delete one first", maxSets)}}}
	}
	if err := s.try(spec); err != nil {
		return Info{}, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
	defer cancel()
	r, err := s.claim(ctx, spec)
	if err != nil {
		return Info{}, err
	}
	s.step("claimed")
	m := s.enter(r)
	m.work.Lock()
	defer m.work.Unlock()
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

// try finds what only ipxebuild knows to be wrong with a spec, before anything
// is written.
func (s *Sets) try(spec Spec) error {
	if _, err := s.stock.Load().Set(s.config(spec, credential{})); err != nil {
		return &Invalid{[]Fault{{"base", CodeInvalid, oneLine(err)}}}
	}
	return nil
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
		if c, err = s.issue(ctx, r); err != nil {
			return nil, err
		}
	}
	s.step("written")
	r.State = ready
	v, err := s.build(r, c)
	if err != nil {
		return nil, err
	}
	if err := s.put(ctx, r); err != nil {
		return nil, err
	}
	s.step("ready")
	return v, nil
}

// Update changes over which protocols a set is served.
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
	if v.rec.State != ready {
		return Info{}, ErrBusy
	}
	next := v.copy()
	next.rec.Spec.Exposure = append([]Protocol{}, exposure...)
	if err := s.put(context.WithoutCancel(ctx), next.rec); err != nil {
		return Info{}, err
	}
	s.replace(m, next)
	s.cfg.Log.InfoContext(ctx, "set's exposure was changed", "set", v.rec.Spec.Name, "exposure", exposure, "means", next.rec.Spec.Consequence())
	return s.info(m), nil
}

// Delete ends a set: when it returns, its files are served no longer and its
// certificates are refused, on open connections too. When it fails half way,
// the set stays listed as deleting, is not served, and Run tries again.
func (s *Sets) Delete(ctx context.Context, id int64) (Info, error) {
	m := s.numbered(id)
	if m == nil {
		return Info{}, ErrUnknown
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
	defer cancel()
	m.work.Lock()
	defer m.work.Unlock()
	if s.numbered(id) == nil { // somebody else has deleted it while we waited
		return Info{}, ErrUnknown
	}
	info := s.info(m)
	r := m.current.Load().rec
	if r.State == ready {
		r.State = deleting
		if err := s.put(ctx, r); err != nil {
			return info, err
		}
		s.replace(m, &version{rec: r})
		s.step("marked")
	}
	info.Status = Deleting
	if err := s.finish(ctx, m); err != nil {
		return info, err
	}
	info.Status = Deleted
	return info, nil
}

// finish does what is left to do of a deletion; it may be done again. The
// caller holds m.work.
func (s *Sets) finish(ctx context.Context, m *member) error {
	r := m.current.Load().rec
	if _, err := s.cfg.Authority.RevokeSet(ctx, r.Spec.Name); err != nil {
		return fmt.Errorf("delete set %s: %w", r.Spec.Name, err)
	}
	s.step("revoked")
	if err := errors.Join(os.RemoveAll(s.dirOf(r)), syncDir(s.cfg.Dir)); err != nil {
		return fmt.Errorf("delete set %s: %w", r.Spec.Name, err)
	}
	s.step("removed")
	if err := s.erase(ctx, r); err != nil {
		return err
	}
	s.leave(r)
	s.cfg.Log.InfoContext(ctx, "set was deleted", "set", r.Spec.Name, "id", r.ID)
	return nil
}

// finishLater is finish for a caller that goes on when it fails.
func (s *Sets) finishLater(ctx context.Context, m *member) {
	m.work.Lock()
	defer m.work.Unlock()
	if s.numbered(m.id) == nil || m.current.Load().rec.State != deleting {
		return
	}
	if err := s.finish(ctx, m); err != nil {
		s.cfg.Log.ErrorContext(ctx, "set was not deleted; trying again", "err", err)
	}
}

// Run renews certificates, ends what should have ended and writes down who used
// which set, until ctx ends; then it writes what is left and returns.
func (s *Sets) Run(ctx context.Context) {
	check, write := time.NewTicker(checkEvery), time.NewTicker(writeEvery)
	defer check.Stop()
	defer write.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if err := s.flushUses(last); err != nil {
				s.cfg.Log.Warn("uses of sets were not written down", "err", err)
			}
			return
		case <-check.C:
			s.check(ctx)
		case <-write.C:
			if err := s.flushUses(ctx); err != nil {
				s.cfg.Log.DebugContext(ctx, "uses of sets are kept in memory until they can be written down", "err", err)
			}
		}
	}
}

// check does what the clock says is due.
func (s *Sets) check(ctx context.Context) {
	for _, m := range s.members() {
		v := m.current.Load()
		switch status := s.status(v); {
		case v.rec.State == deleting:
			s.finishLater(ctx, m)
		case v.rec.State == ready && s.due(v):
			s.renew(ctx, m)
		case status == Expired && v.built != nil:
			s.cfg.Log.WarnContext(ctx, "set has expired: its certificate is refused and its files are not served", "set", v.rec.Spec.Name)
			s.expire(m)
		}
	}
}

// due reports whether the set's certificate is to be replaced.
func (s *Sets) due(v *version) bool {
	return v.rec.Spec.ExpiresAt == nil && v.cert != nil && !s.cfg.Now().Before(v.cert.NotAfter.Add(-renewBefore))
}

// renew replaces the certificate. While that fails, the former one is served.
func (s *Sets) renew(ctx context.Context, m *member) {
	m.work.Lock()
	defer m.work.Unlock()
	v := m.current.Load()
	if v.rec.State != ready || !s.due(v) {
		return
	}
	c, err := s.issue(ctx, v.rec)
	if err == nil {
		var next *version
		if next, err = s.build(v.rec, c); err == nil {
			s.replace(m, next)
			s.cfg.Log.InfoContext(ctx, "set got a new certificate: media that were written before are good until the former one ends",
				"set", v.rec.Spec.Name, "former_until", v.cert.NotAfter)
			return
		}
	}
	s.cfg.Log.ErrorContext(ctx, "set was not renewed; trying again", "set", v.rec.Spec.Name, "err", err)
}

// expire lets go of the files of a set that has ended.
func (s *Sets) expire(m *member) {
	m.work.Lock()
	defer m.work.Unlock()
	v := m.current.Load()
	if v.rec.State != ready || v.built == nil {
		return
	}
	next := v.copy()
	next.built, next.files = nil, nil
	s.replace(m, next)
}
