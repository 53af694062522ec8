package artifact

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"slices"

	"github.com/nestboot/nestboot/pki"
)

// newest is the generation of the authority that issues.
func (s *Sets) newest() int {
	all := s.cfg.Authority.Generations()
	return all[len(all)-1].Number
}

// urlOf is the address that the files of a generation ask: Config.URL with the
// generation's host name.
func (s *Sets) urlOf(generation int) string {
	i := slices.IndexFunc(s.cfg.Authority.Generations(), func(g pki.Generation) bool { return g.Number == generation })
	u, err := url.Parse(s.cfg.URL)
	if generation == 1 || i < 0 || err != nil {
		return s.cfg.URL
	}
	u.Host = s.cfg.Authority.Generations()[i].Host
	if port := portOf(s.cfg.URL); port != "" {
		u.Host = net.JoinHostPort(u.Host, port)
	}
	return u.String()
}

func portOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Port()
}

// in is the record of the set in a generation whose keys are of a type.
func (r record) in(generation int, key string) record {
	r.Generation = generation
	if !r.Spec.Keyless {
		r.Spec.KeyType = key
	}
	return r
}

// settled is the record of a set whose files hold c: they carry the root of the
// generation that issued it. A process that was killed between writing a
// certificate and the record leaves them apart. A keyless set stays where it is
// while that generation lives.
func (s *Sets) settled(r record, c credential) record {
	switch {
	case r.Spec.Keyless && s.cfg.Authority.Trust(r.generation()) == nil:
		return r.in(s.newest(), "")
	case c.generation == 0, c.generation == r.generation():
		return r
	}
	return r.in(c.generation, keyTypeOf(c))
}

func keyTypeOf(c credential) string {
	if c.cert.PublicKeyAlgorithm == x509.ECDSA {
		return KeyP256
	}
	return KeyRSA
}

// carry moves a set to the generation of its new certificate, or the newest for
// a keyless one, and has the authority keep that generation's root as it is.
func (s *Sets) carry(ctx context.Context, r record, c credential) (record, error) {
	if c.cert == nil {
		r.Generation = s.newest()
	}
	r = s.settled(r, c)
	r.Generation = r.generation()
	if err := s.cfg.Authority.FixTrust(ctx, r.Generation); err != nil {
		return r, fmt.Errorf("set %s: %w", r.Spec.Name, err)
	}
	return r, nil
}

// noteMove writes down that a set has moved from where it was, and leaves that to
// Run if it cannot. The caller holds m.work, or nobody knows m yet.
func (s *Sets) noteMove(ctx context.Context, m *member, was record) {
	r := m.current.Load().rec
	if r.generation() == was.generation() {
		return
	}
	err := s.cfg.Authority.FixTrust(ctx, r.Generation)
	if err == nil {
		err = s.put(ctx, r, false)
	}
	if err != nil {
		m.unsaved.Store(true)
		s.cfg.Log.WarnContext(ctx, "a set has moved to another generation, which is not written down yet", "set", r.Spec.Name, "generation", r.Generation, "err", err)
	}
}

// Renew gives a set a certificate of the authority's newest generation, and its
// files that generation's root and address. The former certificate stays good
// until it ends or its generation is dropped, so media that were written before
// go on booting. A keyless set gets the root alone.
func (s *Sets) Renew(ctx context.Context, id int64) (Info, error) {
	m := s.numbered(id)
	if m == nil {
		return Info{}, ErrUnknown
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
	defer cancel()
	m.work.Lock()
	defer m.work.Unlock()
	v := m.current.Load()
	switch {
	case v.rec.State != ready:
		return Info{}, ErrBusy
	case v.rec.damaged != nil:
		return Info{}, fmt.Errorf("set %s: %w", v.rec.Spec.Name, v.rec.damaged)
	case s.expired(v.rec):
		return Info{}, s.hasExpired(v)
	}
	next, err := s.anew(ctx, v.rec)
	if err != nil {
		return Info{}, fmt.Errorf("renew set %s: %w", v.rec.Spec.Name, err)
	}
	if !s.replace(m, v, next) {
		return Info{}, ErrBusy
	}
	s.noteMove(ctx, m, v.rec)
	s.cfg.Log.InfoContext(ctx, "set was renewed", "set", v.rec.Spec.Name, "generation", next.rec.Generation)
	return s.info(m), nil
}

// anew makes a version of a set with a new certificate.
func (s *Sets) anew(ctx context.Context, r record) (*version, error) {
	var c credential
	var err error
	if !r.Spec.Keyless {
		if c, err = s.reissue(ctx, r, s.newest()); err != nil {
			return nil, err
		}
		s.step("reissued")
	}
	if r, err = s.carry(ctx, r, c); err != nil {
		return nil, err
	}
	return s.build(r, c)
}

// Depending are the sets that need a generation of the authority: their files
// carry its root, or a machine came by it last, from media that were written
// before the set was renewed.
func (s *Sets) Depending(generation int) []Info {
	all := []Info{}
	for _, i := range s.List() {
		used := slices.ContainsFunc(slices.Concat(i.Uses, i.Others), func(u Use) bool { return u.Generation == generation })
		if i.Status != Expired && (i.Generation == generation || used) {
			all = append(all, i)
		}
	}
	return all
}
