package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"slices"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"github.com/nestboot/nestboot/artifact"
	"github.com/nestboot/nestboot/pki/links"
)

type options struct {
	config string
	dev    bool
	stderr io.Writer
}

// run is bootd from start to stop. What can fail without a trace is done
// first: configuration, files, ports; then state is opened.
func run(ctx context.Context, o options) error {
	syscall.Umask(0o077) // what bootd writes is nobody else's to read
	// SIGHUP ends a process that does not expect it; from here on it never does.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	cfg, err := loadConfig(o.config)
	if err != nil {
		return err
	}
	loaded := cfg
	if o.dev {
		var cleanup func()
		if cfg, cleanup, err = devConfig(cfg); err != nil {
			return err
		}
		defer cleanup()
	}
	log := newLogger(cfg.Log, o.stderr)
	bundles, err := readBases(ctx, cfg, log)
	if err != nil {
		return err
	}
	used := &inUse{}
	stock, err := openDepot(cfg, used, log)
	if err != nil {
		return err
	}
	cat, err := openCatalogue(ctx, cfg, stock, log)
	if err != nil {
		return err
	}
	socks, err := openSockets(ctx, cfg.Listen, cfg.TFTP)
	if err != nil {
		return errors.Join(err, cat.close())
	}
	defer socks.close()
	used.catalogue.Store(cat)
	s, err := openSite(ctx, siteConfig{Config: cfg, log: log, bundles: bundles, sockets: socks, catalogue: &used.catalogue, depot: stock, inUse: used})
	if err != nil {
		return errors.Join(err, cat.close())
	}
	s.warnAtStart(ctx)
	return errors.Join(s.serve(ctx, hup, func() { s.reload(ctx, o.config, loaded) }), s.close())
}

// warnAtStart repeats at every start what the operator has let out, and what
// machines will miss.
func (s *site) warnAtStart(ctx context.Context) {
	sets := s.sets.List()
	for _, i := range sets {
		open := slices.Contains(i.Spec.Exposure, artifact.TFTP) || slices.Contains(i.Spec.Exposure, artifact.HTTP)
		if open && !i.Spec.Keyless {
			s.log.WarnContext(ctx, "a set is exposed", "set", i.Spec.Name, "means", i.Spec.Consequence())
		}
	}
	for _, l := range slices.Concat(s.who.links.List(links.Chain), s.who.links.List(links.UEFI)) {
		if slices.Contains(l.Protocols, links.HTTP) {
			s.log.WarnContext(ctx, "a URL answers over plain HTTP", "kind", l.Kind, "name", l.Name, "id", l.ID, "means", l.Consequence())
		}
	}
	if len(sets) == 0 {
		s.log.WarnContext(ctx, "there is no artifact set yet; make the first one: nestctl artifact create rack1 --serve tftp")
	}
	if len(s.cfg.Images) == 0 {
		s.log.WarnContext(ctx, "no images are configured: machines will wait")
	}
}

// serve runs every server until ctx ends or one of them fails.
func (s *site) serve(ctx context.Context, hup <-chan os.Signal, reload func()) error {
	servers, ctx := errgroup.WithContext(ctx)
	servers.Go(func() error { return s.tftpServer().Serve(ctx, s.sockets.tftp...) })
	servers.Go(func() error { return s.httpServer().Serve(ctx, s.sockets.http, s.sockets.https, s.sockets.legacy) })
	servers.Go(func() error { return serveHTTP(ctx, s.admin, s.api()) })
	servers.Go(func() error { return serveHTTP(ctx, s.sockets.metrics, s.metrics.handler(s.ready)) })
	servers.Go(func() error { return s.authority.Run(ctx) })
	servers.Go(func() error { return s.serving.Run(ctx) })
	servers.Go(func() error { return s.grants.Run(ctx) })
	servers.Go(func() error { s.depot.Run(ctx); return nil })
	servers.Go(func() error { onHangup(ctx, hup, reload); return nil })
	s.log.InfoContext(ctx, "bootd answers", "version", version(), "boot", s.names.BootURL, "ipxe", s.names.ipxeURL(s.names.IPXE), "admin", s.cfg.Listen.Admin,
		"tftp", s.sockets.tftp[0].LocalAddr().String(), "http", s.sockets.http.Addr().String(), "sets", len(s.sets.List()))
	notify(s.log, daemon.SdNotifyReady)
	<-ctx.Done()
	notify(s.log, daemon.SdNotifyStopping)
	s.log.Info("bootd stops; running transfers may end", "grace", time.Duration(s.cfg.Grace)*time.Second)
	if err := servers.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// serveHTTP runs one of the small servers beside those for machines.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() }) // streams to listeners would never end by themselves
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// onHangup calls reload at each SIGHUP.
func onHangup(ctx context.Context, hup <-chan os.Signal, reload func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			reload()
		}
	}
}

// reload takes over images, machines, the Butane file and the binaries that
// sets are made of, or says why not and leaves what runs as it is.
func (s *site) reload(ctx context.Context, path string, started Config) {
	cfg, err := s.reloadFiles(ctx, path)
	if err != nil {
		s.log.ErrorContext(ctx, "configuration was not reloaded; the former one goes on", "err", err)
		return
	}
	c := s.catalogue.Load()
	s.log.InfoContext(ctx, "configuration was reloaded", "images", len(c.images), "machines", len(c.inventory.Machines))
	if names := needRestart(started, cfg); len(names) > 0 {
		s.log.WarnContext(ctx, "some settings take effect only at a restart", "settings", names)
	}
}

func (s *site) reloadFiles(ctx context.Context, path string) (Config, error) {
	cfg, err := loadConfig(path)
	if err != nil {
		return cfg, err
	}
	bundles, err := readBases(ctx, cfg, s.log)
	if err != nil {
		return cfg, err
	}
	s.inUse.set(s.running, cfg) // what is being loaded must not be collected
	defer func() { s.inUse.set(s.running) }()
	next, err := openCatalogue(ctx, cfg, s.depot, s.log)
	if err != nil {
		return cfg, err
	}
	stock, err := artifact.OpenBases(ctx, bundles, s.path("bases"), s.log)
	if err != nil {
		return cfg, errors.Join(err, next.close())
	}
	// The files of the former images are closed by the runtime, when the last
	// download that reads them has ended.
	s.catalogue.Store(next)
	s.running = cfg
	s.sets.UseStock(ctx, stock)
	s.serving.SetOldIPXE(oldIPXE(stock))
	return cfg, nil
}

// needRestart names the settings that differ and that a reload does not take
// over.
func needRestart(old, now Config) []string {
	old.Images, old.DefaultImage, old.Butane, old.Machines = now.Images, now.DefaultImage, now.Butane, now.Machines
	old.Artifacts = now.Artifacts
	var names []string
	was, is := reflect.ValueOf(old), reflect.ValueOf(now)
	for i := range was.NumField() {
		if !reflect.DeepEqual(was.Field(i).Interface(), is.Field(i).Interface()) {
			names = append(names, was.Type().Field(i).Tag.Get("yaml"))
		}
	}
	return names
}

// devConfig moves ports and state to where any user may have them.
func devConfig(cfg Config) (Config, func(), error) {
	dir, err := os.MkdirTemp("", "nestboot-dev-")
	if err != nil {
		return Config{}, nil, fmt.Errorf("make development state: %w", err)
	}
	cfg.StateDir = dir
	cfg.Listen = Listen{TFTP: "127.0.0.1:6969", HTTP: "127.0.0.1:8080", HTTPS: "127.0.0.1:8443", Metrics: "127.0.0.1:9091", Admin: filepath.Join(dir, "admin.sock")}
	return cfg, func() { _ = os.RemoveAll(dir) }, nil
}

// notify tells systemd, where there is one.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd was not notified", "err", err)
	}
}
