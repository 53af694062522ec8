package main

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/nestboot/nestboot/images/depot"
	"github.com/nestboot/nestboot/images/fetch"
	"github.com/nestboot/nestboot/images/pull"
	"github.com/nestboot/nestboot/images/release"
)

// inUse are the releases that must not be removed: those of the configuration
// that runs, and of one that is being loaded.
type inUse struct {
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

// openDepot looks at the releases that are here. It changes nothing.
func openDepot(cfg Config, used *inUse, log *slog.Logger) (*depot.Depot, error) {
	used.set(cfg)
	return depot.Open(depot.Config{Dir: filepath.Join(cfg.StateDir, "images"), InUse: used.list, Log: log, Now: time.Now})
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
	systems, err := release.Load(c.Systems)
	if err != nil {
		return fmt.Errorf("downloads.systems: %w", err)
	}
	s.puller = &pull.Puller{Depot: s.depot, Client: client, Systems: systems, Reserve: reserve, Now: time.Now}
	return nil
}
