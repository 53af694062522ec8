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
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nestboot/nestboot/pki/vault"
	"github.com/nestboot/nestboot/store"
)

// Config says where the boot PKI lives and for whom its server answers.
type Config struct {
	// Dir holds root.pem, root.key, intermediate.pem, intermediate.key and the
	// server certificates of generation 1, and one folder for each further
	// generation. It is made with mode 0700; a directory of another user or one
	// that others may enter is refused. Required.
	Dir string
	// Vault keeps the private keys in Dir; nil: they are not encrypted.
	Vault *vault.Vault
	// Store keeps generations and which machine certificates were issued, below
	// "pki/". Required.
	Store *store.Store
	// Hosts and Addrs are the names and addresses that machines use to reach
	// this server. At least one is required; a change is taken up by the next
	// Open.
	Hosts []string
	Addrs []netip.Addr
	// IPXE is the host name of generation 1, for iPXE; those of later ones are
	// made from it: ipxe-2.example.net. Empty: the first of Hosts that begins
	// with "ipxe."; without any there is one generation only.
	IPXE string
	// Import is an authority of the customer's that issues all certificates from
	// the next Open on; nil: our own does.
	Import *Import
	// Step is a step-ca that does so instead; nil: none.
	Step *StepCA
	// Log receives one line per certificate issued; nil: nothing is logged.
	Log *slog.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// NewKey makes RSA keys; nil: with 2048 bits. It may be called concurrently.
	NewKey func() (*rsa.PrivateKey, error)
}

// Authority is one opened boot PKI. Its methods may be called concurrently.
type Authority struct {
	log     *slog.Logger
	now     func() time.Time
	dir     keyDir
	store   *store.Store
	names   serverNames // of generation 1
	ipxe    string      // host name of generation 1; may be empty
	records *records
	keys    *keyPool
	changed *signal
	steps   func(step string) // tests end the process in it; may be nil

	renewing sync.Mutex // one renewal at a time: it replaces files
	changing sync.Mutex // one change of generations at a time; locked after renewing

	publishing sync.Mutex // never held across a wait; locked after the others
	current    atomic.Pointer[generations]
	chains     chains
}

// Open loads the boot PKI from cfg.Dir, or makes it on the first start, and
// has current server certificates when it returns. A first start or a rotation
// that was cut short is completed or undone. Files that are missing, foreign or
// readable by others are refused with the remedy: a new root would silently lock
// out every machine that trusts the old one.
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
	if cfg.Import != nil && cfg.Step != nil {
		return nil, errors.New("an imported authority and a step-ca are configured: leave one of them")
	}
	if cfg.IPXE == "" {
		if i := slices.IndexFunc(cfg.Hosts, isIPXE); i >= 0 {
			cfg.IPXE = cfg.Hosts[i]
		}
	} else {
		cfg.Hosts = append(slices.Clone(cfg.Hosts), cfg.IPXE)
	}
	names, err := newServerNames(cfg.Hosts, cfg.Addrs)
	if err != nil {
		return nil, err
	}
	if cfg.Store == nil {
		return nil, errors.New("a store is required")
	}
	if cfg.NewKey == nil {
		cfg.NewKey = newKey
	}
	dir, err := openKeyDir(keyDir{cfg.Dir, cfg.Vault, cfg.NewKey})
	if err != nil {
		return nil, err
	}
	log, now := orDefaults(cfg.Log, cfg.Now)
	return &Authority{
		log: log, now: now, dir: dir, store: cfg.Store, names: names, ipxe: strings.ToLower(cfg.IPXE),
		keys: newKeyPool(log, cfg.NewKey), changed: newSignal(),
	}, nil
}

func isIPXE(host string) bool { return strings.HasPrefix(strings.ToLower(host), "ipxe.") }

func orDefaults(log *slog.Logger, now func() time.Time) (*slog.Logger, func() time.Time) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if now == nil {
		now = time.Now
	}
	return log, now
}

func (a *Authority) open(ctx context.Context, cfg Config) (err error) {
	if a.records, err = openRecords(ctx, cfg.Store, a.now, a.changed.fire); err != nil {
		return err
	}
	if err := a.openGenerations(ctx, cfg); err != nil {
		return err
	}
	return a.openServers(ctx)
}

func (a *Authority) step(name string) {
	if a.steps != nil {
		a.steps(name)
	}
}

// Changed returns a channel that is closed by the next change after which a
// certificate may be refused, or a generation has come or gone. Take it before
// asking what such a change would alter.
func (a *Authority) Changed() <-chan struct{} { return a.changed.wait() }

// Root returns the certificate that machines of the newest generation trust.
func (a *Authority) Root() *x509.Certificate { return a.Trust(0) }

// RootFingerprint returns the SHA-256 of Root's DER form: the trust anchor that
// is patched into iPXE binaries.
func (a *Authority) RootFingerprint() [32]byte { return sha256.Sum256(a.Root().Raw) }

// ServerCertificate returns the RSA certificate of the newest generation, or its
// only one. See Leafs.
func (a *Authority) ServerCertificate() *tls.Certificate {
	leafs := a.Leafs(a.current.Load().newest().number)
	return leafs[len(leafs)-1]
}
