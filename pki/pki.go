// Package pki is what nestboot knows about trust while machines boot: the boot
// PKI (root, intermediate, server and machine certificates), who a client
// certificate belongs to, and the grants with which a machine fetches its
// configuration once.
//
// It is not a certificate service: it opens no socket and speaks no ACME, OCSP
// or CRL, because iPXE (1.21.1 to 2.0.0) asks for whatever its certificates
// mention. It never stores a machine's private key nor any token in clear, and
// it doesn't decide what a machine boots.
//
// Begin at Open and Authority.Verify for certificates, at OpenGrants for boot
// sessions, at Secret for what must not be printed.
package pki

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nestboot/nestboot/store"
	"github.com/smallstep/certificates/authority"
)

// Config says where the boot PKI lives and for whom its server answers.
type Config struct {
	// Dir holds root.pem, root.key, intermediate.pem, intermediate.key,
	// server.pem and server.key. It is made with mode 0700; a directory of
	// another user or one that others may enter is refused. Required.
	Dir string
	// Store keeps which machine certificates were issued, below "pki/".
	// Required.
	Store *store.Store
	// Hosts and Addrs are the names and addresses that machines use to reach
	// this server. At least one is required; a change is taken up by the next
	// Open.
	Hosts []string
	Addrs []netip.Addr
	// Log receives one line per certificate issued; nil: nothing is logged.
	Log *slog.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// NewKey makes the keys of machine certificates; nil: RSA with 2048 bits.
	// It may be called concurrently.
	NewKey func() (*rsa.PrivateKey, error)
}

// Authority is one opened boot PKI. Its methods may be called concurrently.
type Authority struct {
	log          *slog.Logger
	now          func() time.Time
	dir          keyDir
	names        serverNames
	root         *x509.Certificate
	intermediate *x509.Certificate
	embedded     *authority.Authority
	records      *records
	keys         *keyPool

	roots, intermediates *x509.CertPool // of one certificate each

	renewing sync.Mutex // one renewal at a time: it replaces two files
	server   atomic.Pointer[tls.Certificate]
}

// Open loads the boot PKI from cfg.Dir, or makes it on the first start, and
// has a current server certificate when it returns. A first start that was cut
// short is completed. Files that are missing, foreign or readable by others are
// refused with the remedy: a new root would silently lock out every machine
// that trusts the old one.
//
// ctx bounds Open only; what it opens lives as long as cfg.Store.
func Open(ctx context.Context, cfg Config) (*Authority, error) {
	a, err := newAuthority(cfg)
	if err != nil {
		return nil, fmt.Errorf("boot pki: %w", err)
	}
	if err := a.open(ctx, cfg); err != nil {
		return nil, fmt.Errorf("boot pki: %w", err)
	}
	return a, nil
}

func newAuthority(cfg Config) (*Authority, error) {
	names, err := newServerNames(cfg.Hosts, cfg.Addrs)
	if err != nil {
		return nil, err
	}
	if cfg.Store == nil {
		return nil, errors.New("a store is required")
	}
	dir, err := openKeyDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	log, now := orDefaults(cfg.Log, cfg.Now)
	if cfg.NewKey == nil {
		cfg.NewKey = newKey
	}
	return &Authority{log: log, now: now, dir: dir, names: names, keys: newKeyPool(log, cfg.NewKey)}, nil
}

func orDefaults(log *slog.Logger, now func() time.Time) (*slog.Logger, func() time.Time) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if now == nil {
		now = time.Now
	}
	return log, now
}

func (a *Authority) open(ctx context.Context, cfg Config) error {
	ca, err := a.openIssuers(ctx, cfg.Store)
	if err != nil {
		return err
	}
	if a.records, err = openRecords(ctx, cfg.Store, a.now); err != nil {
		return err
	}
	a.root, a.intermediate = ca.root.cert, ca.intermediate.cert
	a.roots, a.intermediates = x509.NewCertPool(), x509.NewCertPool()
	a.roots.AddCert(a.root)
	a.intermediates.AddCert(a.intermediate)
	if a.embedded, err = newEmbedded(ca, a.records); err != nil {
		return err
	}
	return a.openServer(ctx)
}

// Root returns the certificate that machines trust.
func (a *Authority) Root() *x509.Certificate { return a.root }

// RootFingerprint returns the SHA-256 of the root's DER form: the trust anchor
// that is patched into iPXE binaries.
func (a *Authority) RootFingerprint() [32]byte { return sha256.Sum256(a.root.Raw) }

// ServerCertificate returns the current server certificate. It changes in
// place when it is renewed, so ask again for every handshake. Its chain is
// leaf, intermediate, root: iPXE trusts a fingerprint and must be sent the
// certificate that has it.
func (a *Authority) ServerCertificate() *tls.Certificate { return a.server.Load() }
