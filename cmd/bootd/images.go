package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nestboot/nestboot/admin"
	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/images/bundle"
	"github.com/nestboot/nestboot/images/depot"
	"github.com/nestboot/nestboot/images/fetch"
	"github.com/nestboot/nestboot/images/pull"
	"github.com/nestboot/nestboot/images/release"
)

// inUse are the releases that must not be removed: those of the configuration
// that runs, and of one that is being loaded; and the files that are served.
type inUse struct {
	catalogue atomic.Pointer[catalogue] // nil until the first is open

	mu  sync.Mutex
	ids []string
}

// set says what is in use from now on.
func (u *inUse) set(configs ...Config) {
	var ids []string
	for _, c := range configs {
		for _, i := range c.Images {
			if r, err := i.ref(); i.Release != "" && err == nil {
				ids = append(ids, r.ID())
			}
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ids = ids
}

func (u *inUse) list() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.ids)
}

// digests are those of the files that are served.
func (u *inUse) digests() []string {
	c := u.catalogue.Load()
	if c == nil {
		return nil
	}
	var all []string
	for _, img := range c.images {
		all = append(all, img.Kernel.SHA256)
		for _, f := range img.Initrds {
			all = append(all, f.SHA256)
		}
	}
	return all
}

// openDepot looks at the releases that are here. It changes nothing.
func openDepot(cfg Config, used *inUse, log *slog.Logger) (*depot.Depot, error) {
	used.set(cfg)
	return depot.Open(depot.Config{Dir: filepath.Join(cfg.StateDir, "images"), InUse: used.list, Served: used.digests, Log: log, Now: time.Now})
}

// openDownloads makes what pulls releases into the depot.
func (s *site) openDownloads() (err error) {
	if err := s.depot.Prepare(); err != nil {
		return err
	}
	c := s.cfg.Downloads
	reserve := s.cfg.Reserve << 20
	client, err := fetch.NewClient(fetch.Config{Proxy: c.Proxy, CA: c.CA, Mirrors: c.Mirrors, Reserve: reserve})
	if err != nil {
		return fmt.Errorf("downloads: %w", err)
	}
	systems, err := loadSystems(c.Systems)
	if err != nil {
		return err
	}
	if s.bundleKey, err = s.openBundleKey(); err != nil {
		return err
	}
	s.puller = &pull.Puller{Depot: s.depot, Client: client, Systems: systems, Reserve: reserve, Now: time.Now}
	return nil
}

// loadSystems reads descriptions, whose arguments must be such as machines can
// be given.
func loadSystems(paths []string) (release.Systems, error) {
	systems, err := release.Load(paths)
	errs := []error{err}
	for _, name := range systems.Names() {
		errs = append(errs, checkArgs(name, systems[name].Args))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("downloads.systems: %w", err)
	}
	return systems, nil
}

// checkArgs reports kernel arguments that would be more than one word each (T18).
func checkArgs(of string, args []string) error {
	for _, a := range args {
		if _, err := boot.KernelArg(a); err != nil {
			return fmt.Errorf("%s: args: %w", of, err)
		}
	}
	return nil
}

// openBundleKey reads the key that signs bundles, or makes it.
func (s *site) openBundleKey() (ed25519.PrivateKey, error) {
	path := s.path("images/bundle.key")
	seed, err := s.vault.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		seed = make([]byte, ed25519.SeedSize)
		if _, err := rand.Read(seed); err != nil {
			return nil, fmt.Errorf("make the key that signs bundles: %w", err)
		}
		err = s.vault.Write(path, seed)
	}
	if err != nil {
		return nil, fmt.Errorf("the key that signs bundles: %w", err)
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s is damaged: restore it, or remove it for another key, which other installations must be told", path)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// bundles says whose bundles are taken, and where their binaries go.
func (s *site) bundles() admin.Bundles {
	own, _ := s.bundleKey.Public().(ed25519.PublicKey) // it is always one
	trusted := []string{bundle.Fingerprint(own)}
	for _, k := range s.cfg.Downloads.BundleKeys {
		trusted = append(trusted, strings.ToLower(k))
	}
	return admin.Bundles{
		Key: s.bundleKey, Trusted: trusted,
		Bases: s.path("bases"), Reserve: s.cfg.Reserve << 20,
	}
}
