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
	serverFile = "server"

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

// openServer takes up the stored server certificate if it is still right, else
// issues another. Nothing depends on the old one, so any damage is repaired.
func (a *Authority) openServer(ctx context.Context) error {
	stored, err := a.dir.readPair(serverFile)
	if err == nil {
		err = a.checkServer(stored.cert)
	}
	if err == nil {
		a.setServer(stored)
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) { // the first start has none
		a.log.InfoContext(ctx, "stored server certificate not used", "stage", "pki", "err", err)
	}
	return a.renew(ctx)
}

func (a *Authority) checkServer(cert *x509.Certificate) error {
	if err := cert.CheckSignatureFrom(a.intermediate); err != nil {
		return fmt.Errorf("not issued by the intermediate: %w", err)
	}
	if !a.names.equal(cert) {
		return errors.New("it has other names than configured")
	}
	if due := renewalOf(cert); !a.now().Before(due) {
		return fmt.Errorf("due for renewal since %s", due.Format(time.DateTime))
	}
	return nil
}

func (a *Authority) setServer(p pair) {
	a.server.Store(&tls.Certificate{
		Certificate: [][]byte{p.cert.Raw, a.intermediate.Raw, a.root.Raw},
		PrivateKey:  p.key,
		Leaf:        p.cert,
	})
}

// renewalOf returns the time at which two thirds of a certificate's life after
// its issue are over.
func renewalOf(cert *x509.Certificate) time.Time {
	issued := cert.NotBefore.Add(backdate)
	return issued.Add(cert.NotAfter.Sub(issued) * 2 / 3)
}

func (a *Authority) renew(ctx context.Context) error {
	a.renewing.Lock()
	defer a.renewing.Unlock()
	key, err := newKey()
	if err != nil {
		return err
	}
	cert, err := a.sign(ctx, leaf{
		profile: serverProfile, name: "nestboot boot server", until: a.now().Add(serverLife), sans: a.names.sans(),
	}, key)
	if err != nil {
		return fmt.Errorf("issue server certificate: %w", err)
	}
	if err := a.dir.writeKey(serverFile, key); err != nil {
		return err
	}
	if err := a.dir.writeCerts(serverFile, cert, a.intermediate, a.root); err != nil {
		return err
	}
	a.setServer(pair{cert: cert, key: key})
	a.log.InfoContext(ctx, "server certificate issued", "stage", "pki")
	return nil
}

// Run renews the server certificate after two thirds of its life, in place, and
// keeps keys ready for IssueMachine, until ctx ends; then it returns nil. A
// failure is logged and tried again after a minute, then less and less often,
// but every hour at least.
func (a *Authority) Run(ctx context.Context) error {
	var filling sync.WaitGroup
	filling.Go(func() { a.keys.fill(ctx) })
	defer filling.Wait()
	repeat(ctx, a.log, "server certificate", a.renewIfDue)
	return nil
}

// renewIfDue returns how long to wait before asking again.
func (a *Authority) renewIfDue(ctx context.Context) (time.Duration, error) {
	if a.checkServer(a.server.Load().Leaf) != nil {
		if err := a.renew(ctx); err != nil {
			return 0, err
		}
	}
	wait := renewalOf(a.server.Load().Leaf).Sub(a.now())
	return min(wait, clockCheck), nil
}
