package trusted

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"time"

	"github.com/nestboot/nestboot/pki"
)

// Limits of the search for paths: whoever connects chooses what we search in.
const (
	maxPresented  = 4   // intermediates; further ones are not looked at
	maxPath       = 8   // certificates from leaf to anchor
	maxClaims     = 8   // paths per entry
	maxSignatures = 128 // checked per search
	maxSteps      = 512 // taken per search
)

// claim is a certificate that belongs to an entry by its signatures, or by
// being pinned: what is true of it whatever the time. Rules decide the rest.
type claim struct {
	m       *member
	removed time.Time           // when its entry was; zero: it was not
	path    []*x509.Certificate // leaf first, anchor last; of a pin the leaf alone
	id      pki.Identity        // ends when the first of the path, or the entry, does
	allowed string              // the first pattern that fits; empty: none
	code    string              // what is wrong with it at any time
	reason  string
}

func newClaim(m *member, removed time.Time, path []*x509.Certificate) claim {
	c := claim{m: m, removed: removed, path: path, id: identityOf(path[0])}
	c.id.Kind, c.id.ID, c.id.Name, c.id.Machines = m.spec.Kind, m.id, m.spec.Name, m.spec.Machines
	for i, cert := range path {
		if cert.NotAfter.Before(c.id.NotAfter) {
			c.id.NotAfter = cert.NotAfter
		}
		if i > 0 {
			c.id.Path = append(c.id.Path, pki.Hop{Serial: pki.SerialOf(path[i-1]), Issuer: issuerOf(cert), By: nameOf(cert)})
		}
	}
	if e := m.spec.ExpiresAt; e != nil && e.Before(c.id.NotAfter) {
		c.id.NotAfter = *e
	}
	for _, p := range slices.Backward(m.allow) {
		if p.matches(path[0]) {
			c.allowed = p.text
		}
	}
	if m.spec.Kind == pki.KindPin {
		c.code, c.reason = checkUsage(path[0])
	} else {
		c.code, c.reason = checkPath(path)
	}
	return c
}

// issuerOf tells authorities apart by name and key: a renewed certificate with
// the same key is the same issuer.
func issuerOf(c *x509.Certificate) pki.Digest {
	return sha256.Sum256(slices.Concat(c.RawSubject, c.RawSubjectPublicKeyInfo))
}

// search finds the claims of one presented certificate.
type search struct {
	presented []*x509.Certificate
	checked   map[[2]*x509.Certificate]bool // child, parent: is it signed so?
	steps     int
}

// claims finds every entry that leaf belongs to, pins first. What was removed
// is asked only if nothing else knows the leaf.
func (all *catalogue) claims(leaf *x509.Certificate, presented []*x509.Certificate) []claim {
	s := search{checked: map[[2]*x509.Certificate]bool{}}
	for _, c := range presented {
		s.presented = append(s.presented, all.interned(c))
	}
	leaf = all.interned(leaf)
	var found []claim
	for _, m := range all.live {
		if m.pins(leaf) {
			found = append(found, newClaim(m, time.Time{}, []*x509.Certificate{leaf}))
		}
	}
	for _, m := range all.live {
		found = append(found, s.authority(m, time.Time{}, leaf)...)
	}
	if len(found) > 0 {
		return found
	}
	for _, g := range slices.Backward(all.gone) {
		if g.pins(leaf) {
			return []claim{newClaim(g.member, g.at, []*x509.Certificate{leaf})}
		}
		if found = s.authority(g.member, g.at, leaf); len(found) > 0 {
			return found
		}
	}
	return nil
}

// pins reports whether leaf is what the entry has pinned.
func (m *member) pins(leaf *x509.Certificate) bool {
	if m.spec.Kind != pki.KindPin || len(m.certs) == 0 {
		return false
	}
	if m.spec.Match == MatchKey {
		return bytes.Equal(m.certs[0].RawSubjectPublicKeyInfo, leaf.RawSubjectPublicKeyInfo)
	}
	return m.certs[0].Equal(leaf)
}

// authority finds the paths from leaf to the anchors of an entry.
func (s *search) authority(m *member, removed time.Time, leaf *x509.Certificate) []claim {
	if m.spec.Kind != pki.KindCA {
		return nil
	}
	if slices.Contains(m.certs, leaf) {
		return []claim{newClaim(m, removed, []*x509.Certificate{leaf})}
	}
	pool := slices.Clone(m.certs)
	for _, c := range s.presented {
		if !slices.Contains(pool, c) {
			pool = append(pool, c)
		}
	}
	var found []claim
	for _, path := range s.paths(m, pool, leaf) {
		found = append(found, newClaim(m, removed, path))
	}
	return found
}

// paths finds those that lead over the pool to an anchor, short ones first. It
// goes by names, and checks signatures only of what leads to an anchor, from
// there down: strangers cost us none.
func (s *search) paths(m *member, pool []*x509.Certificate, leaf *x509.Certificate) [][]*x509.Certificate {
	var found [][]*x509.Certificate
	for begun := [][]*x509.Certificate{{leaf}}; len(begun) > 0; begun = begun[1:] {
		path := begun[0]
		for _, parent := range pool {
			if !bytes.Equal(path[len(path)-1].RawIssuer, parent.RawSubject) || slices.Contains(path, parent) {
				continue
			}
			if s.steps++; s.steps > maxSteps || len(found) == maxClaims {
				return found
			}
			next := append(slices.Clip(path), parent)
			switch {
			case !slices.Contains(m.anchors, parent):
				if len(next) < maxPath {
					begun = append(begun, next)
				}
			case s.signedPath(next):
				found = append(found, next)
			}
		}
	}
	return found
}

func (s *search) signedPath(path []*x509.Certificate) bool {
	for i := len(path) - 1; i > 0; i-- {
		if !s.signed(path[i-1], path[i]) {
			return false
		}
	}
	return true
}

func (s *search) signed(child, parent *x509.Certificate) bool {
	pair := [2]*x509.Certificate{child, parent}
	ok, known := s.checked[pair]
	if known || len(s.checked) == maxSignatures {
		return ok
	}
	ok = checkKey(parent) == nil && child.CheckSignatureFrom(parent) == nil
	s.checked[pair] = ok
	return ok
}
