package artifact

import (
	"strings"
	"time"

	"github.com/nestboot/nestboot/ipxebuild"
	"github.com/nestboot/nestboot/pki"
)

// Status is where a set is in its life, as operators see it.
type Status string

// The statuses, in the order of a life. A set without an end of its own renews
// itself and stays ready.
const (
	Creating Status = "creating"
	Ready    Status = "ready"
	Renewing Status = "renewing" // its certificate is refused, by a revocation say; Run makes another
	Expiring Status = "expiring" // it ends within 30 days
	Expired  Status = "expired"  // its certificate is refused, its files are not served
	Failed   Status = "failed"   // it cannot be assembled; its certificate is good
	Deleting Status = "deleting" // its files are not served; tried again until it is gone
	Deleted  Status = "deleted"  // what Delete returns; it is listed no longer
)

// Certificate is what is known of a set's client certificate.
type Certificate struct {
	Serial   string    `json:"serial"`
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"not_after"`
}

// Info is what an operator is told of a set.
type Info struct {
	ID          int64
	Spec        Spec
	Status      Status
	Created     time.Time
	Generation  int          // of the authority, whose root its files carry
	Certificate *Certificate // nil for a keyless set
	Files       []ipxebuild.FileInfo
	Missing     []string   // what the set could have but for a base, each with the reason
	Uses        []Use      // the latest first
	Others      []Use      // of machines that are not remembered: the last of each generation
	Token       pki.Secret // of its download addresses
	Fault       string     // why it failed, or is renewing
}

// List is all sets in the order of their numbers.
func (s *Sets) List() []Info {
	all := []Info{}
	for _, m := range s.members() {
		all = append(all, s.info(m))
	}
	return all
}

// Get finds a set by its number.
func (s *Sets) Get(id int64) (Info, bool) {
	m := s.numbered(id)
	if m == nil {
		return Info{}, false
	}
	return s.info(m), true
}

// Named finds a set by its name, in whatever case.
func (s *Sets) Named(name string) (Info, bool) {
	m := s.named(strings.ToLower(name))
	if m == nil {
		return Info{}, false
	}
	return s.info(m), true
}

// Bases is what sets can be made of: packages, and versions of iPXE, the newest
// first.
func (s *Sets) Bases() (bundles []ipxebuild.Bundle, versions []string) {
	stock := s.stock.Load()
	if stock != nil {
		bundles = stock.Bundles()
	}
	return bundles, versionsOf(stock)
}

func (s *Sets) info(m *member) Info {
	v := m.current.Load()
	i := Info{ID: m.id, Spec: v.rec.Spec, Status: s.status(v), Created: v.rec.Created, Generation: v.rec.generation(), Token: v.token}
	i.Uses, i.Others = m.uses.all()
	if v.cert != nil {
		i.Certificate = &Certificate{Serial: pki.SerialOf(v.cert), Subject: v.cert.Subject.CommonName, NotAfter: v.cert.NotAfter}
	}
	if v.built != nil {
		i.Files, i.Missing = v.built.Files(), v.built.Missing()
	}
	switch {
	case v.fault != nil:
		i.Fault = oneLine(v.fault)
	case i.Status == Renewing:
		i.Fault = "its certificate is refused (" + oneLine(s.refused(v)) + "): another one is made within a minute; write media anew then"
	}
	return i
}

func (s *Sets) status(v *version) Status {
	switch v.rec.State {
	case creating:
		return Creating
	case deleting:
		return Deleting
	}
	end := s.end(v)
	switch now := s.cfg.Now(); {
	case !end.IsZero() && !now.Before(end):
		return Expired
	case v.fault != nil:
		return Failed
	case s.refused(v) != nil:
		return Renewing
	case !end.IsZero() && !now.Before(end.Add(-renewBefore)):
		return Expiring
	}
	return Ready
}

// end is when the set ends by itself; zero: never.
func (s *Sets) end(v *version) time.Time {
	switch {
	case v.rec.Spec.ExpiresAt != nil:
		return *v.rec.Spec.ExpiresAt
	case v.cert != nil: // it is renewed before that, unless that fails
		return v.cert.NotAfter
	}
	return time.Time{}
}
