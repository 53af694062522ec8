// Package serving decides which certificate a host name shows: one of given
// files, or one of our own authority. It refuses what the machines could not
// verify before any machine has to find out, takes up changed files while bootd
// runs, and warns in time of what will not work for much longer.
//
// It issues nothing (that is package pki), opens no socket, and doesn't decide
// which names there are. Begin at Open and Certificates.For.
package serving

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nestboot/nestboot/pki"
)

// File names a certificate and its key, both in PEM form. The certificate's file
// holds the whole chain: the server's first, then each one's issuer, the root
// last. The key's file may be the same one.
type File struct{ Certificate, Key string }

// Config says what there is to show.
type Config struct {
	// Authority shows its own certificates for all names that no file covers.
	// Required.
	Authority *pki.Authority
	// Files are used for the host names that they cover, by wildcards too: boot.,
	// ipxe., app., agent., pkg. and pkg-push. below Domain, and the names of later
	// generations, ipxe-2. and so on.
	Files []File
	// Domain is the domain of the host names.
	Domain string
	// OldIPXE says that artifacts are made of an iPXE before 2.0.0, which knows
	// no elliptic curves. See SetOldIPXE.
	OldIPXE bool
	Log     *slog.Logger     // nil: nothing is logged
	Now     func() time.Time // nil: time.Now
}

// Certificates are those that are shown at the moment. Its methods may be called
// concurrently; those that a handshake waits for read memory only.
type Certificates struct {
	cfg     Config
	current atomic.Pointer[selection]
	old     atomic.Bool // artifacts are made of an iPXE before 2.0.0

	mu     sync.Mutex // one look at the files at a time
	files  []*loaded
	last   attempt
	notice notice

	parsing sync.Mutex
	parsed  map[int][]*pair // of our own authority, by generation
}

// loaded is a file as it was read last, and the pair that was made of what it
// held then or, if that was no good, before.
type loaded struct {
	file File
	held content
	pair *pair
	err  error // why the last content is not in use
}

// Open reads the files and checks them, and our own certificates, for what
// machines could not verify. It returns all faults at once. Generations whose
// host names the files cover trust the files' root from now on.
func Open(ctx context.Context, cfg Config) (*Certificates, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Certificates{cfg: cfg}
	c.old.Store(cfg.OldIPXE)
	if err := c.open(ctx); err != nil {
		return nil, fmt.Errorf("server certificates: %w", err)
	}
	return c, nil
}

func (c *Certificates) open(ctx context.Context) error {
	var faults []error
	for _, f := range c.cfg.Files {
		l := &loaded{file: f}
		l.refresh()
		c.files = append(c.files, l)
		faults = append(faults, l.err)
	}
	s, err := c.choose(ctx, nil)
	if err := errors.Join(append(faults, err)...); err != nil {
		return err
	}
	c.current.Store(s)
	c.warn(ctx)
	return nil
}

// SetOldIPXE changes Config.OldIPXE while bootd runs. Where no certificate suits
// such an iPXE, Status and the log say so from then on.
func (c *Certificates) SetOldIPXE(old bool) { c.old.Store(old) }

// refresh reads a file again, and reports whether another pair came of it.
func (l *loaded) refresh() (changed bool) {
	held, err := l.file.read()
	if err == nil && l.pair != nil && held.equal(l.held) {
		l.err = nil
		return false
	}
	var p *pair
	if err == nil {
		p, err = l.file.parse(held)
	}
	if l.err = err; err != nil {
		return false
	}
	l.held, l.pair = held, p
	return true
}

// For returns how to choose the certificate of a host name, for
// tls.Config.GetCertificate: an ECDSA one for clients that can verify it, else
// an RSA one. What it returns follows all later changes.
func (c *Certificates) For(host string) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	host = strings.ToLower(host)
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		certs := c.of(host)
		if len(certs) == 0 {
			return nil, fmt.Errorf("there is no server certificate for %s", host)
		}
		last := len(certs) - 1
		for _, cert := range certs[:last] {
			if hello.SupportsCertificate(cert) == nil {
				return cert, nil
			}
		}
		return certs[last], nil
	}
}

// of returns a host name's certificates, those with ECDSA first.
func (c *Certificates) of(host string) []*tls.Certificate {
	s := c.current.Load()
	if certs := s.certs[host]; certs != nil {
		return certs
	}
	if number, ok := s.own[host]; ok {
		return c.cfg.Authority.Leafs(number)
	}
	if g, ok := c.generation(host); ok { // it was made a moment ago
		return c.cfg.Authority.Leafs(g.Number)
	}
	return nil
}

// Root returns the last certificate of what a host name shows: a client that
// trusts it can verify the name. Nil: there is no such name.
func (c *Certificates) Root(host string) *x509.Certificate {
	return c.rootIn(c.current.Load(), strings.ToLower(host))
}

func (c *Certificates) rootIn(s *selection, host string) *x509.Certificate {
	if pairs := s.given[host]; pairs != nil {
		return pairs[0].root()
	}
	number, ok := s.own[host]
	if g, found := c.generation(host); !ok && found {
		number, ok = g.Number, true
	}
	if !ok {
		return nil
	}
	pairs, err := c.ownPairs(number)
	if err != nil || len(pairs) == 0 {
		return nil
	}
	return pairs[0].root()
}

// generation returns the one with a host name for iPXE.
func (c *Certificates) generation(host string) (pki.Generation, bool) {
	for _, g := range c.cfg.Authority.Generations() {
		if host == g.Host && host != "" {
			return g, true
		}
	}
	return pki.Generation{}, false
}
