package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nestboot/nestboot/artifact"
	"github.com/nestboot/nestboot/inventory"
	"github.com/nestboot/nestboot/ipxebuild"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/links"
	"github.com/nestboot/nestboot/pki/serving"
	"github.com/nestboot/nestboot/pki/trusted"
	"github.com/nestboot/nestboot/pki/vault"
	"github.com/nestboot/nestboot/store"
)

// openState opens what does not depend on what machines boot.
func (s *site) openState(ctx context.Context) (err error) {
	if err := s.openVault(ctx); err != nil {
		return err
	}
	warnOfLostStore(ctx, s.path("store"), s.path("pki"), s.log)
	s.store, err = store.Open(ctx, store.Config{Dir: s.path("store"), Log: s.log, Reserve: s.cfg.Reserve << 20})
	if err != nil {
		return err
	}
	if err := s.openWho(ctx); err != nil {
		return err
	}
	if s.machines, err = inventory.OpenMachines(s.store, s.log); err != nil {
		return err
	}
	if s.journal, err = inventory.OpenJournal(ctx, s.store, s.log, s.metrics.observe); err != nil {
		return err
	}
	s.org, err = inventory.Organization(ctx, s.store)
	return err
}

// warnOfLostStore says so when there are keys but nothing of what was made with
// them: bootd goes on as if it were new, and nobody it has let in before gets in.
func warnOfLostStore(ctx context.Context, storeDir, keyDir string, log *slog.Logger) {
	if _, err := os.Stat(keyDir); err != nil {
		return // new indeed
	}
	if _, err := os.Stat(storeDir); errors.Is(err, fs.ErrNotExist) {
		log.ErrorContext(ctx, "the store is gone while the keys are there: sets, machines and what was revoked are forgotten; "+
			"stop bootd and restore it from a backup", "path", storeDir)
	}
}

// openWho opens the ways in which machines prove who they are.
func (s *site) openWho(ctx context.Context) (err error) {
	s.who = &who{}
	s.authority, err = pki.Open(ctx, pki.Config{
		Dir: s.path("pki"), Vault: s.vault, Store: s.store, Log: s.log,
		Hosts: []string{s.names.Boot}, IPXE: s.names.IPXE, Addrs: s.cfg.Addresses,
		Import: s.cfg.Authority.imported(), Step: s.cfg.Authority.step(),
	})
	if err != nil {
		return err
	}
	s.who.authority = s.authority
	if s.who.trusted, err = trusted.Open(ctx, trusted.Config{Store: s.store, Dir: s.path("trusted"), Log: s.log}); err != nil {
		return err
	}
	s.who.links, err = links.Open(ctx, links.Config{
		Store: s.store, Vault: s.vault, Path: s.path("links.secret"), Log: s.log,
		Exists: s.setExists,
	})
	if err != nil {
		return err
	}
	if s.grants, err = pki.OpenGrants(ctx, s.store, s.log, time.Now); err != nil {
		return err
	}
	s.grants.Good = s.who.good
	return nil
}

// setExists reports whether URLs may lead to a set. Before the sets are open it
// takes nothing away.
func (s *site) setExists(id int64) bool {
	if s.sets == nil {
		return true
	}
	i, ok := s.sets.Get(id)
	return ok && i.Status != artifact.Deleting
}

// openVault opens the private files. Those that are left from before a key was
// configured are encrypted, before anybody uses them.
func (s *site) openVault(ctx context.Context) (err error) {
	if s.vault, err = vault.Open(s.cfg.StateDir, s.cfg.Keys.kek()); err != nil || !s.vault.Sealed() {
		return err
	}
	n, err := s.vault.Seal(s.path("pki"), s.path("sets"), s.path("links.secret"), s.path("images/bundle.key"))
	if err == nil && n > 0 {
		s.log.WarnContext(ctx, "private files were encrypted that lay in clear until now: backups and free blocks of the disk may still have them", "files", n)
	}
	return err
}

// path is a path below the state directory.
func (s *site) path(name string) string { return filepath.Join(s.cfg.StateDir, name) }

// openSets opens what machines boot from. The server certificates come first:
// they say which root the sets trust.
func (s *site) openSets(ctx context.Context, bundles []ipxebuild.Bundle) error {
	stock, err := artifact.OpenBases(ctx, bundles, s.path("bases"), s.log)
	if err != nil {
		return err
	}
	s.serving, err = serving.Open(ctx, serving.Config{
		Authority: s.authority, Files: serverFiles(s.cfg.Certificates), Domain: s.cfg.Domain, OldIPXE: oldIPXE(stock), Log: s.log,
	})
	if err != nil {
		return err
	}
	s.sets, err = artifact.Open(ctx, artifact.Config{
		Dir: s.path("sets"), URL: s.names.ipxeURL(s.names.IPXE), Store: s.store, Authority: s.authority,
		Stock: stock, Vault: s.vault, Log: s.log, Now: time.Now,
	})
	return err
}

// oldIPXE reports whether sets may be made of an iPXE that knows no elliptic
// curves.
func oldIPXE(stock *ipxebuild.Stock) bool {
	return stock != nil && slices.ContainsFunc(stock.Versions(), func(v string) bool { return strings.HasPrefix(v, "1.") })
}
