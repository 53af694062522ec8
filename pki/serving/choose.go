package serving

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nestboot/nestboot/pki"
)

// others are names that given files may cover, for what is not served yet.
var others = [...]string{"app", "agent", "pkg", "pkg-push"}

func bootOf(domain string) string { return "boot." + strings.ToLower(domain) }

// host is a name for which certificates are chosen.
type host struct {
	name       string
	needed     bool            // machines connect to it
	generation *pki.Generation // nil: artifacts don't trust it
}

// selection is which certificate each host name shows. It never changes.
type selection struct {
	hosts []host
	given map[string][]*pair            // by host name, ECDSA first
	certs map[string][]*tls.Certificate // the same
	own   map[string]int                // number of the generation by host name; 0: the newest
	notes map[string]string             // what the operator should know of a host name
}

func (c *Certificates) hosts() []host {
	all := []host{{name: bootOf(c.cfg.Domain), needed: true}}
	for _, g := range c.cfg.Authority.Generations() {
		if g.Host != "" {
			all = append(all, host{name: g.Host, needed: true, generation: &g})
		}
	}
	for _, label := range others {
		all = append(all, host{name: label + "." + strings.ToLower(c.cfg.Domain)})
	}
	return all
}

// choose makes a selection of the pairs that are loaded, and returns all faults
// of what machines would not verify. former is the selection in use; nil: there
// is none.
func (c *Certificates) choose(ctx context.Context, former *selection) (*selection, error) {
	s := &selection{
		hosts: c.hosts(), given: map[string][]*pair{}, certs: map[string][]*tls.Certificate{}, own: map[string]int{}, notes: map[string]string{},
	}
	var faults []error
	for _, l := range c.files {
		if l.pair != nil {
			faults = append(faults, uselessFault(l.pair, s.hosts, c.cfg.Domain))
		}
	}
	for _, h := range s.hosts {
		if err := c.chooseFor(h, s); err != nil {
			faults = append(faults, err)
		}
		if former != nil && h.needed && former.given[h.name] != nil && s.given[h.name] == nil {
			faults = append(faults, fmt.Errorf("no file covers %s any more: give a certificate with this name, or restart bootd to have it use its own", h.name))
		}
	}
	faults = append(faults, c.chainFaults(s, former)...)
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if former != nil {
		c.noteBoot(s, former)
	}
	return s, c.settleTrust(ctx, s)
}

// noteBoot says that boot. shows a certificate of another root than before.
// Nothing that is recorded refuses that, but firmware has the roots that
// somebody enrolled.
func (c *Certificates) noteBoot(s, former *selection) {
	host := bootOf(c.cfg.Domain)
	if s.given[host] == nil {
		return // of our own, which a rotation tells of
	}
	was, is := c.rootIn(former, host), c.rootIn(s, host)
	switch {
	case was == nil:
	case was.Equal(is):
		s.notes[host] = former.notes[host]
	default:
		s.notes[host] = fmt.Sprintf("it led to the root %s (SHA-256 %x) and leads to %s (SHA-256 %x) now: firmware that boots by HTTPS must trust the new one (nestctl ca export --format esl)",
			nameOf(was), sha256.Sum256(was.Raw), nameOf(is), sha256.Sum256(is.Raw))
	}
}

// uselessFault is that of a pair which is good for no name.
func uselessFault(p *pair, hosts []host, domain string) error {
	for _, h := range hosts {
		if covered, _ := p.covers(h.name); covered {
			return nil
		}
	}
	return fmt.Errorf("%s is for %s, and none of that is a name of %s: a certificate for %s and %s is needed, or a wildcard; without files bootd uses its own",
		p.name, cmp.Or(strings.Join(p.leaf().DNSNames, ", "), "no host name"), domain, bootOf(domain), "ipxe."+domain)
}

// chooseFor finds the files for a host name. A client trusts one root of a name,
// so all of them end in the same: for a generation in that which its artifacts
// trust, if one does. Else a file that names the host comes before a wildcard.
func (c *Certificates) chooseFor(h host, s *selection) error {
	var wild, exact, trusted []*pair
	trust := c.cfg.Authority.Trust(numberOf(h))
	for _, l := range c.files {
		if l.pair == nil {
			continue
		}
		covered, named := l.pair.covers(h.name)
		switch {
		case !covered:
			continue
		case named:
			exact = append(exact, l.pair)
		default:
			wild = append(wild, l.pair)
		}
		if trust != nil && l.pair.root().Equal(trust) {
			trusted = append(trusted, l.pair)
		}
	}
	pairs := wild
	switch {
	case len(exact) > 0 && (h.generation == nil || len(trusted) == 0):
		pairs = exact
	case len(trusted) > 0:
		pairs = trusted
	}
	for _, p := range pairs {
		if !p.root().Equal(pairs[0].root()) {
			return fmt.Errorf("%s: %s ends in %s and %s in %s: a client trusts one root of a name, so give certificates below one of them", h.name,
				pairs[0].name, nameOf(pairs[0].root()), p.name, nameOf(p.root()))
		}
	}
	s.use(h, pairs)
	return nil
}

// numberOf is the generation whose trust counts for a host name; 0: the newest.
func numberOf(h host) int {
	if h.generation == nil {
		return 0
	}
	return h.generation.Number
}

// use has a host name show pairs; without any, our own.
func (s *selection) use(h host, pairs []*pair) {
	delete(s.given, h.name)
	delete(s.certs, h.name)
	if len(pairs) == 0 {
		if h.needed {
			s.own[h.name] = numberOf(h)
		}
		return
	}
	slices.SortFunc(pairs, func(a, b *pair) int {
		return cmp.Or(cmp.Compare(a.keyType(), b.keyType()), b.leaf().NotAfter.Compare(a.leaf().NotAfter))
	})
	s.given[h.name] = pairs
	for _, p := range pairs {
		s.certs[h.name] = append(s.certs[h.name], p.cert)
	}
}

// chainFaults are those of chains that machines have to verify, each once.
func (c *Certificates) chainFaults(s, former *selection) (faults []error) {
	seen := map[*pair]bool{}
	for _, h := range s.hosts {
		if !h.needed {
			continue
		}
		pairs, given := s.given[h.name]
		if !given {
			own, err := c.ownPairs(s.own[h.name])
			if err != nil {
				faults = append(faults, err)
			}
			if len(own) == 0 {
				s.notes[h.name] = "our authority can issue no certificate for this name any more: renew the artifacts of its generation and drop it with nestctl ca drop"
				continue
			}
			pairs = own
		}
		for _, p := range pairs {
			if !seen[p] {
				faults = append(faults, p.faults(c.cfg.Now())...)
			}
			seen[p] = true
			if err := p.leaf().VerifyHostname(h.name); err != nil {
				faults = append(faults, fmt.Errorf("%s: it lacks the name %s: %w", p.name, h.name, err))
			}
		}
		if err := c.tooNew(h, pairs); err != nil && !former.tooNew(h.name) {
			faults = append(faults, err)
		}
	}
	return faults
}

// tooNew is the fault of chains that the iPXE in artifacts cannot verify. It
// connects to the host name of its generation only.
func (c *Certificates) tooNew(h host, pairs []*pair) error {
	if !c.old.Load() || h.generation == nil {
		return nil
	}
	return withoutRSA(h.name, pairs)
}

// tooNew reports whether what a host name shows is not for an old iPXE anyway:
// other faults of it can then be mended one at a time.
func (s *selection) tooNew(host string) bool {
	return s != nil && s.given[host] != nil && withoutRSA(host, s.given[host]) != nil
}

// ownPairs are the certificates of our own authority. Behind the root may follow
// what ties it to older ones. Each is parsed once: machines wait for the root.
func (c *Certificates) ownPairs(number int) ([]*pair, error) {
	leafs := c.cfg.Authority.Leafs(number)
	c.parsing.Lock()
	defer c.parsing.Unlock()
	known := c.parsed[number]
	if len(leafs) > 0 && slices.EqualFunc(leafs, known, func(leaf *tls.Certificate, p *pair) bool { return leaf == p.cert }) {
		return slices.Clip(known), nil
	}
	pairs, err := parsePairs(leafs)
	if err == nil {
		if c.parsed == nil {
			c.parsed = map[int][]*pair{}
		}
		c.parsed[number] = pairs
	}
	return slices.Clip(pairs), err // who appends gets a copy
}

func parsePairs(leafs []*tls.Certificate) ([]*pair, error) {
	var pairs []*pair
	for _, leaf := range leafs {
		p := &pair{name: "own authority", cert: leaf, own: true}
		for _, der := range leaf.Certificate {
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
			p.chain = append(p.chain, cert)
			if selfSigned(cert) {
				break
			}
		}
		pairs = append(pairs, p)
	}
	return pairs, nil
}
