package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/httpboot"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/links"
	"github.com/nestboot/nestboot/pki/trusted"
)

// who joins the ways in which somebody can prove who they are: certificates of
// our authority, certificates of others, and tokens.
type who struct {
	authority *pki.Authority
	trusted   *trusted.Trusted
	links     *links.Links
	changes   changes
}

// identify says who presents a certificate. What our own authority has issued
// to a set is judged by it alone; anything else is looked for among the
// certificates of others, whoever issued it. Of two refusals the one counts
// that knows more.
func (w *who) identify(chain []*x509.Certificate, at time.Time) (pki.Identity, error) {
	id, err := w.authority.Verify(chain, at)
	ours, foreign := stranger(err)
	if !foreign {
		return id, err
	}
	id, err = w.trusted.Verify(chain, at)
	var theirs *pki.Refusal
	switch {
	case !errors.As(err, &theirs) || theirs.Code != pki.CodeUnknownCA:
		return id, err
	case ours.Code != pki.CodeUnknownCA:
		return pki.Identity{}, ours
	}
	theirs.Reason = ours.Reason + ", and " + theirs.Reason
	return pki.Identity{}, theirs
}

// stranger returns the refusal of a certificate that is none of a set's: it
// names no set, so none was ever recorded with it. An authority that was
// imported issues for others too, and what it issued to them may be registered.
func stranger(err error) (*pki.Refusal, bool) {
	var r *pki.Refusal
	if !errors.As(err, &r) {
		return nil, false
	}
	return r, r.Code != pki.CodeNoCertificate && r.Identity.Kind != pki.KindSet
}

// explain asks what identify asks, rule by rule.
func (w *who) explain(chain []*x509.Certificate, at time.Time) []pki.Step {
	steps := w.authority.Explain(chain, at)
	_, err := w.authority.Verify(chain, at)
	if _, foreign := stranger(err); !foreign {
		return steps
	}
	return append(steps, w.trusted.Explain(chain, at)...)
}

func (w *who) identifyURL(kind pki.Kind, token, over string, at time.Time) (pki.Identity, error) {
	id, _, err := w.links.Find(kind, token, over, at)
	return id, err
}

// good says whether an identity that was good before still is.
func (w *who) good(id pki.Identity, at time.Time) error {
	switch id.Kind {
	case pki.KindSet:
		return w.authority.Good(id, at)
	case pki.KindCA, pki.KindPin:
		return w.trusted.Good(id, at)
	case pki.KindURL, pki.KindUEFI:
		return w.links.Good(id, at)
	}
	return fmt.Errorf("nobody knows a credential of kind %q", id.Kind)
}

// member says whether an identity may boot a machine.
func (s *site) member(id pki.Identity, machine string) error {
	if id.Kind == pki.KindSet {
		return s.sets.Member(id.Set, machine)
	}
	if len(id.Machines) > 0 && !slices.Contains(id.Machines, machine) {
		return fmt.Errorf("%s %s is limited to %d machines and this is none of them", id.Kind, id.Name, len(id.Machines))
	}
	return nil
}

// used takes down by what a machine came.
func (s *site) used(r boot.Request, at time.Time) {
	switch c := r.Credential; pki.Kind(c.Kind) {
	case pki.KindSet:
		s.sets.Used(c.Set, r.UUID, c.Generation, at)
	case pki.KindCA, pki.KindPin:
		s.who.trusted.Used(c.ID, c.Subject, r.UUID, c.Generation, at)
	case pki.KindURL:
		s.who.links.Used(pki.KindURL, c.ID, r.UUID, at)
	}
}

// hosts says what a name on the TLS port is.
func (s *site) host(name string) (httpboot.Host, bool) {
	if name == "" || name == s.names.Boot {
		return httpboot.Host{Name: s.names.Boot, Role: httpboot.Boot, URL: s.names.BootURL, Certificate: s.serving.For(s.names.Boot)}, true
	}
	for _, g := range s.authority.Generations() {
		if g.Host == name {
			return httpboot.Host{Name: name, Role: httpboot.IPXE, URL: s.names.ipxeURL(name), Generation: g.Number, Certificate: s.serving.For(name)}, true
		}
	}
	return httpboot.Host{Gone: s.dropped(name)}, false
}

// dropped says so of a name that was that of a generation; empty: it was none.
func (s *site) dropped(name string) string {
	all := s.authority.Generations()
	for n := range all[len(all)-1].Number {
		if g, ok := s.authority.Generation(n); ok && g.Dropped && g.Host == name {
			return fmt.Sprintf("generation %d of the authority, whose name it was, was dropped: its boot files need to be made anew", n)
		}
	}
	return ""
}

// roots are what a machine must trust to reach boot. for as long as it lives:
// the root of its certificate, and those that may come to sign it.
func (s *site) roots() []*x509.Certificate {
	roots := []*x509.Certificate{s.serving.Root(s.names.Boot)}
	for _, g := range s.authority.Generations() {
		roots = append(roots, g.Root)
	}
	slices.SortStableFunc(roots, func(a, b *x509.Certificate) int { return slices.Compare(a.Raw, b.Raw) })
	return slices.CompactFunc(roots, (*x509.Certificate).Equal)
}

// changes is rung when something that was good may not be any more, whoever
// says so.
type changes struct {
	mu   sync.Mutex
	next chan struct{}
}

// changed returns what the next ring closes.
func (c *changes) changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		c.next = make(chan struct{})
	}
	return c.next
}

func (c *changes) ring() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next != nil {
		close(c.next)
	}
	c.next = make(chan struct{})
}

// watch rings whenever one of those who know says that something changed, until
// ctx ends. It takes what they ring next before it rings itself, so that
// nothing is missed between the two.
func (w *who) watch(ctx context.Context) {
	for {
		ours, theirs, urls := w.authority.Changed(), w.trusted.Changed(), w.links.Changed()
		w.changes.ring()
		select {
		case <-ctx.Done():
			return
		case <-ours:
		case <-theirs:
		case <-urls:
		}
	}
}
