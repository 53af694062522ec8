package artifact

import (
	"context"
	"crypto/x509"
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
	// longestWait is after how many checks at most what failed is tried again.
	longestWait = 60
)

// backoff counts checks and not time: the clock may be what is wrong.
type backoff struct{ skip, wait int }

// now reports whether it is time to try again.
func (b *backoff) now() bool {
	if b.skip > 0 {
		b.skip--
		return false
	}
	return true
}

// tried takes down how it went.
func (b *backoff) tried(ok bool) {
	b.wait = min(2*b.wait+1, longestWait)
	if ok {
		b.wait = 0
	}
	b.skip = b.wait
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

// check does what the clock says is due, and again what failed.
func (s *Sets) check(ctx context.Context) {
	for _, m := range s.members() {
		v := m.current.Load()
		switch {
		case v.rec.State == deleting:
			s.finishLater(ctx, m)
		case v.rec.State != ready:
		case m.unsaved.Load():
			s.save(ctx, m)
		case s.down(v):
			if m.retry.now() {
				m.retry.tried(s.reload(ctx, m))
			}
		case s.due(v):
			if m.retry.now() {
				m.retry.tried(s.renew(ctx, m))
			}
		case s.expired(v.rec) && v.built != nil:
			s.cfg.Log.WarnContext(ctx, "set has expired: its certificate is refused and its files are not served", "set", v.rec.Spec.Name)
			s.expire(m)
		}
	}
}

// save writes down what Update could not.
func (s *Sets) save(ctx context.Context, m *member) {
	m.work.Lock()
	defer m.work.Unlock()
	r := m.current.Load().rec
	if r.State != ready || !m.unsaved.Load() {
		return
	}
	if err := s.put(ctx, r, true); err != nil {
		s.cfg.Log.ErrorContext(ctx, "a set's exposure was not written down; trying again", "set", r.Spec.Name, "err", err)
		return
	}
	m.unsaved.Store(false)
}

// due reports whether the set's certificate is to be replaced: it is refused
// just now, as after a start with a wrong clock, or it ends soon and another
// one would end later.
func (s *Sets) due(v *version) bool {
	switch {
	case s.expired(v.rec):
		return false
	case s.cfg.Authority.Trust(v.rec.generation()) == nil:
		return true // its generation was dropped
	case v.cert == nil:
		return false
	}
	if s.refused(v) != nil {
		return true
	}
	now := s.cfg.Now()
	return v.rec.Spec.ExpiresAt == nil && v.cert.NotAfter.Before(s.cfg.Authority.EndOf(s.issuer(v.rec))) &&
		!now.Before(v.cert.NotAfter.Add(-renewBefore))
}

// refused says why machines with the set's certificate are refused just now; nil:
// they are not.
func (s *Sets) refused(v *version) error {
	if v.cert == nil {
		return nil
	}
	_, err := s.cfg.Authority.Verify([]*x509.Certificate{v.cert}, s.cfg.Now())
	return err
}

// renew replaces the certificate, and reports whether it did. While that fails,
// the former one is served.
func (s *Sets) renew(ctx context.Context, m *member) bool {
	m.work.Lock()
	defer m.work.Unlock()
	v := m.current.Load()
	if v.rec.State != ready || !s.due(v) {
		return true
	}
	next, err := s.renewed(ctx, v)
	if err != nil {
		s.cfg.Log.ErrorContext(ctx, "set was not renewed; trying again", "set", v.rec.Spec.Name, "err", err)
		return false
	}
	if !s.replace(m, v, next) {
		return true // it is being deleted
	}
	s.noteMove(ctx, m, v.rec)
	media := "good until the former one ends"
	if err := s.refused(v); err != nil {
		media = "refused, write them anew: " + oneLine(err)
	}
	s.cfg.Log.InfoContext(ctx, "set got a new certificate", "set", v.rec.Spec.Name, "generation", next.rec.generation(), "former_media", media)
	return true
}

// renewed is the version of a set with a certificate that is good for long.
func (s *Sets) renewed(ctx context.Context, v *version) (*version, error) {
	var c credential
	var err error
	if !v.rec.Spec.Keyless {
		if c, err = s.credential(ctx, v.rec); err != nil {
			return nil, err
		}
	}
	r, err := s.carry(ctx, v.rec, c)
	if err != nil {
		return nil, err
	}
	return s.build(r, c)
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
	s.replace(m, v, next)
}
