package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.step.sm/crypto/x509util"
)

const (
	serverLife = 90 * 24 * time.Hour

	serverFile   = "server"    // RSA
	serverECFile = "server-ec" // P-256

	// clockCheck bounds each wait for a renewal: the wall clock may be set
	// while we wait.
	clockCheck = time.Hour
)

// serverNames are the names in a server certificate, sorted, each once.
type serverNames struct {
	hosts []string
	addrs []netip.Addr
}

func newServerNames(hosts []string, addrs []netip.Addr) (serverNames, error) {
	var n serverNames
	for _, h := range hosts {
		if _, err := netip.ParseAddr(h); err == nil || h == "" {
			return n, fmt.Errorf("%q was configured as a host name: addresses belong to the addresses", h)
		}
		n.hosts = append(n.hosts, strings.ToLower(h))
	}
	for _, a := range addrs {
		if !a.IsValid() {
			return n, errors.New("an invalid address was configured")
		}
		n.addrs = append(n.addrs, a.Unmap().WithZone(""))
	}
	if len(n.hosts)+len(n.addrs) == 0 {
		return n, errors.New("a host name or an address of this server is required")
	}
	slices.Sort(n.hosts)
	n.hosts = slices.Compact(n.hosts)
	slices.SortFunc(n.addrs, netip.Addr.Compare)
	n.addrs = slices.Compact(n.addrs)
	return n, nil
}

func (n serverNames) sans() []x509util.SubjectAlternativeName {
	var sans []x509util.SubjectAlternativeName
	for _, h := range n.hosts {
		sans = append(sans, x509util.SubjectAlternativeName{Type: x509util.DNSType, Value: h})
	}
	for _, a := range n.addrs {
		sans = append(sans, x509util.SubjectAlternativeName{Type: x509util.IPType, Value: a.String()})
	}
	return sans
}

func (n serverNames) equal(cert *x509.Certificate) bool {
	var addrs []netip.Addr
	for _, ip := range cert.IPAddresses {
		addrs = append(addrs, toAddr(ip))
	}
	return slices.Equal(n.hosts, cert.DNSNames) && slices.Equal(n.addrs, addrs)
}

func toAddr(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

// openServers takes up the stored server certificates that are still right, and
// issues the others. Nothing depends on the old ones, so any damage is repaired.
// Only the newest generation cannot do without.
func (a *Authority) openServers(ctx context.Context) error {
	gs := a.current.Load()
	for _, g := range gs.living() {
		g.leafs.Store(&[]*tls.Certificate{})
		err := a.openServer(ctx, g)
		if err != nil && g == gs.newest() {
			return err
		}
		if err != nil {
			a.log.ErrorContext(ctx, "server certificate of a former generation could not be renewed", "stage", "pki", "generation", g.number, "err", err)
		}
	}
	return nil
}

func (a *Authority) openServer(ctx context.Context, g *generation) error {
	leafs, err := a.storedLeafs(ctx, g), error(nil)
	if !a.complete(g, leafs) {
		leafs, err = a.renewLeafs(ctx, g, leafs)
	}
	g.leafs.Store(&leafs)
	return err
}

// storedLeafs reads what is still right; below an issuer that is not here any
// more, whatever there is.
func (a *Authority) storedLeafs(ctx context.Context, g *generation) (leafs []*tls.Certificate) {
	for _, kind := range serverKinds(g) {
		stored, err := g.dir.readPair(kind.file)
		if err == nil && g.signer != nil {
			err = a.checkServer(g, stored.cert)
		}
		if err == nil {
			leafs = append(leafs, newLeaf(stored, g.chain()))
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) { // the first start has none
			a.log.InfoContext(ctx, "stored server certificate not used", "stage", "pki", "generation", g.number, "err", err)
		}
	}
	return leafs
}

// complete reports whether all kinds are there and none is to be replaced.
func (a *Authority) complete(g *generation, leafs []*tls.Certificate) bool {
	if g.signer == nil {
		return len(leafs) > 0
	}
	return len(leafs) == len(serverKinds(g)) &&
		!slices.ContainsFunc(leafs, func(c *tls.Certificate) bool { return a.checkServer(g, c.Leaf) != nil })
}

func (a *Authority) checkServer(g *generation, cert *x509.Certificate) error {
	if err := cert.CheckSignatureFrom(g.intermediate); err != nil {
		return fmt.Errorf("not issued by the intermediate: %w", err)
	}
	if !a.namesOf(g.number).equal(cert) {
		return errors.New("it has other names than configured")
	}
	if due := renewalOf(cert); !a.now().Before(due) {
		return fmt.Errorf("due for renewal since %s", due.Format(time.DateTime))
	}
	return nil
}

func newLeaf(p pair, issuers []*x509.Certificate) *tls.Certificate {
	c := &tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key, Leaf: p.cert}
	for _, issuer := range issuers {
		c.Certificate = append(c.Certificate, issuer.Raw)
	}
	return c
}

// renewalOf returns the time at which two thirds of a certificate's life after
// its issue are over.
func renewalOf(cert *x509.Certificate) time.Time {
	issued := cert.NotBefore.Add(backdate)
	return issued.Add(cert.NotAfter.Sub(issued) * 2 / 3)
}

// renewLeafs returns the certificates of all kinds: those of leafs that are
// still right, and new ones. When that fails it returns the former ones.
func (a *Authority) renewLeafs(ctx context.Context, g *generation, leafs []*tls.Certificate) ([]*tls.Certificate, error) {
	var next []*tls.Certificate
	for _, kind := range serverKinds(g) {
		old := slices.IndexFunc(leafs, func(c *tls.Certificate) bool { return isEC(c.Leaf.PublicKey) == (kind.file == serverECFile) })
		if old >= 0 && a.checkServer(g, leafs[old].Leaf) == nil {
			next = append(next, leafs[old])
			continue
		}
		p, issuers, err := a.issueServer(ctx, g, kind)
		if err == nil {
			err = g.dir.writePair(kind.file, p, issuers)
		}
		if err != nil {
			return leafs, err
		}
		next = append(next, newLeaf(p, issuers))
		a.log.InfoContext(ctx, "server certificate issued", "stage", "pki", "generation", g.number, "type", p.cert.PublicKeyAlgorithm.String())
	}
	return next, nil
}

// issueServer returns a server certificate and its issuers, root last.
func (a *Authority) issueServer(ctx context.Context, g *generation, kind serverKind) (pair, []*x509.Certificate, error) {
	key, err := kind.newKey()
	if err != nil {
		return pair{}, nil, err
	}
	chain, err := a.sign(ctx, g, leaf{
		profile: kind.profile, name: "nestboot boot server", until: a.now().Add(serverLife), sans: a.namesOf(g.number).sans(),
	}, key)
	if err != nil {
		return pair{}, nil, fmt.Errorf("issue server certificate: %w", err)
	}
	return pair{chain[0], key}, chain[1:], nil
}

// Run renews the server certificates after two thirds of their lives, in place,
// keeps keys ready for IssueMachine, and writes down what Revoke, RevokeSet and
// Drop could not, until ctx ends; then it returns nil. A failure is logged and tried again after a minute, then less and less often,
// but every hour at least.
func (a *Authority) Run(ctx context.Context) error {
	var others sync.WaitGroup
	others.Go(func() { a.keys.fill(ctx) })
	others.Go(func() { a.save(ctx) })
	defer others.Wait()
	repeat(ctx, a.log, "server certificate", a.renewIfDue)
	return nil
}

// renewIfDue returns how long to wait before asking again.
func (a *Authority) renewIfDue(ctx context.Context) (time.Duration, error) {
	a.renewing.Lock()
	defer a.renewing.Unlock()
	wait := clockCheck
	var errs []error
	for _, g := range a.current.Load().living() {
		if g.signer == nil {
			continue
		}
		if leafs := *g.leafs.Load(); !a.complete(g, leafs) {
			next, err := a.renewLeafs(ctx, g, leafs)
			if err != nil {
				errs = append(errs, fmt.Errorf("generation %d: %w", g.number, err))
				continue
			}
			g.leafs.Store(&next)
		}
		for _, c := range *g.leafs.Load() {
			wait = min(wait, renewalOf(c.Leaf).Sub(a.now()))
		}
	}
	return wait, errors.Join(errs...)
}
