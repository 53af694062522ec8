package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nestboot/nestboot/admin"
	"github.com/nestboot/nestboot/artifact"
	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/httpboot"
	"github.com/nestboot/nestboot/ignition"
	"github.com/nestboot/nestboot/images/depot"
	"github.com/nestboot/nestboot/images/pull"
	"github.com/nestboot/nestboot/inventory"
	"github.com/nestboot/nestboot/ipxebuild"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/serving"
	"github.com/nestboot/nestboot/pki/vault"
	"github.com/nestboot/nestboot/store"
)

type siteConfig struct {
	Config
	log       *slog.Logger
	bundles   []ipxebuild.Bundle
	sockets   *sockets
	catalogue *atomic.Pointer[catalogue]
	depot     *depot.Depot
	inUse     *inUse
}

// site is everything that bootd has open, wired together.
type site struct {
	cfg       Config
	log       *slog.Logger
	sockets   *sockets
	catalogue *atomic.Pointer[catalogue]
	names     names
	metrics   *metrics
	org       string
	admin     net.Listener
	vault     *vault.Vault
	store     *store.Store
	authority *pki.Authority
	serving   *serving.Certificates
	sets      *artifact.Sets
	who       *who
	grants    *pki.Grants
	machines  *inventory.Machines
	journal   *inventory.Journal
	depot     *depot.Depot
	puller    *pull.Puller
	bundleKey ed25519.PrivateKey
	inUse     *inUse
	running   Config         // as it was loaded last; reloads come one after the other
	books     sync.WaitGroup // journal, register and uses of sets
	stop      context.CancelFunc
}

// names are the host names that machines use, and their URLs. IPXE is that of
// the first generation of roots.
type names struct {
	Boot, IPXE, BootURL, HTTPURL string
	ipxeURL                      func(host string) string
}

// openSite opens the state. What was opened is closed again when a later part
// fails.
func openSite(ctx context.Context, c siteConfig) (s *site, err error) {
	s = &site{
		cfg: c.Config, log: c.log, sockets: c.sockets, catalogue: c.catalogue, metrics: newMetrics(),
		depot: c.depot, inUse: c.inUse, running: c.Config,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	s.names = names{Boot: "boot." + c.Domain, IPXE: "ipxe." + c.Domain}
	s.names.BootURL, s.names.HTTPURL = urlOf("https", s.names.Boot, c.sockets.https), urlOf("http", s.names.Boot, c.sockets.http)
	s.names.ipxeURL = func(host string) string { return urlOf("https", host, c.sockets.https) }
	if err := checkStateDir(c.StateDir); err != nil {
		return s, err
	}
	if s.admin, err = listenAdmin(ctx, c.Listen.Admin); err != nil {
		return s, err
	}
	if err := s.openState(ctx); err != nil {
		return s, err
	}
	if err := s.openSets(ctx, c.bundles); err != nil {
		return s, err
	}
	if err := s.openDownloads(); err != nil {
		return s, err
	}
	s.keepBooks()
	return s, nil
}

// keepBooks runs journal, register, sets, URLs and trusted certificates apart from the servers, because
// they must outlive them: the last events and uses count too, and what ends
// while the last downloads run cuts them.
func (s *site) keepBooks() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.books.Go(func() { s.journal.Run(ctx) })
	s.books.Go(func() { s.machines.Run(ctx) })
	s.books.Go(func() { s.sets.Run(ctx) })
	s.books.Go(func() { s.who.trusted.Run(ctx) })
	s.books.Go(func() { _ = s.who.links.Run(ctx) }) // it always ends with nil
	s.books.Go(func() { s.who.watch(ctx) })
}

// close ends the books and then closes what openSite opened, the last first.
func (s *site) close() error {
	if s.stop != nil {
		s.stop()
		s.books.Wait()
	}
	var errs []error
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.admin != nil {
		if err := s.admin.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// ready is the answer to /readyz.
func (s *site) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if _, err := s.store.Get(ctx, "ready"); err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("state cannot be read: %w", err)
	}
	return nil
}

// record adds the MAC address by which operators look for a machine: its later
// requests do not tell it, and takes out what may be a secret.
func (s *site) record(e boot.Event) {
	if e.MAC == "" {
		if m, ok := s.machines.Get(e.Machine); ok {
			e.MAC = m.MAC
		}
	}
	s.journal.Record(redactEvent(e), time.Now())
}

func (s *site) api() http.Handler {
	return &admin.API{
		Org: s.org, BootURL: s.names.BootURL, HTTPURL: s.names.HTTPURL, IPXEURL: s.names.ipxeURL,
		Authority: s.authority, Trusted: s.who.trusted, Links: s.who.links, Servers: s.serving.Status, Roots: s.roots,
		Machines: s.machines, Journal: s.journal, Artifacts: s.sets, Images: s.depot, Pull: s.puller.Pull, Bundles: s.bundles(),
		Identify: s.who.identify, Explain: s.who.explain, Log: s.log, Now: time.Now, Version: version(),
	}
}

func (s *site) httpServer() *httpboot.Server {
	server := &httpboot.Server{
		Grants: s.grants, Log: s.log, Now: time.Now, Grace: time.Duration(s.cfg.Grace) * time.Second,
		Site: httpboot.Site{
			Hosts:       s.host,
			Roots:       s.roots,
			Identify:    s.who.identify,
			IdentifyURL: s.who.identifyURL,
			Good:        s.who.good,
			Changed:     s.who.changes.changed,
			Member:      s.member,
			Artifact:    s.openHTTP,
			Download:    s.download,
			UEFI:        s.uefi,
			Inventory:   func() boot.Inventory { return s.catalogue.Load().inventory },
			Base:        s.base,
			Image:       func(image, file string) (httpboot.ImageFile, bool) { return s.catalogue.Load().file(image, file) },
			Begin:       func(r boot.Request) string { return s.journal.Boots.Begin(r.Addr, r.UUID, r.MAC, time.Now()) },
			Saw:         s.saw,
			Done:        func(uuid, bootID string) { s.machines.Done(uuid, bootID, time.Now()) },
			Record:      s.record,
		},
	}
	s.cfg.HTTP.configure(server)
	s.metrics.registry.MustRegister(httpMetrics(server)...)
	return server
}

func (s *site) base() (ignition.Base, error) {
	base := s.catalogue.Load().base
	if base == nil {
		return ignition.Base{}, errors.New("no Butane file is configured: set butane")
	}
	return *base, nil
}

func (s *site) saw(r boot.Request, p boot.Plan, id string) {
	s.used(r, time.Now())
	if p.Action == boot.ActBoot {
		s.journal.Boots.Started(r.Addr, id)
	}
	if err := s.machines.Saw(r, p, id, time.Now()); err != nil {
		s.log.Warn("machine boots but is not registered", "machine", r.UUID, "mac", r.MAC, "err", err)
	}
}

// checkStateDir makes the state directory and refuses one that others could
// read or that is not ours.
func checkStateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("state_dir: %w", err)
	}
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("state_dir: %w", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("state_dir: %s belongs to user %d and bootd runs as %d: run it as that user, or chown -R the directory", dir, sys.Uid, os.Geteuid())
	}
	if st.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("state_dir: %s is open to others (mode %04o) and would hold private keys: chmod 0700 %s", dir, st.Mode().Perm(), dir)
	}
	return nil
}
