package main

import (
	"bytes"
	"crypto/ed25519"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/admin"
	"github.com/nestboot/nestboot/images/bundle"
	"github.com/nestboot/nestboot/images/depot"
	"github.com/nestboot/nestboot/images/fetch"
	"github.com/nestboot/nestboot/images/pull"
	"github.com/nestboot/nestboot/images/release"
	"github.com/nestboot/nestboot/integration/mirror"
)

// TestImageScripts pulls from a mirror that is laid out like Flatcar's.
func TestImageScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/image",
		Setup: func(e *testscript.Env) error {
			api := newAPI(t)
			m := openImages(t, api)
			api.Bundles.Key = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
			e.Setenv("MIRROR", m.URL)
			e.Setenv("BUNDLEKEY", bundle.Fingerprint(ed25519.PublicKey(api.Bundles.Key[32:])))
			m.WriteTo(t, filepath.Join(e.WorkDir, "stick"))
			return serve(t, e, api)
		},
	})
}

// openImages gives an API a depot, and a mirror with flatcar:stable 1.0, 2.0 and
// 3.0, which 3.0 has of a key that expired.
func openImages(t *testing.T, api *admin.API) *mirror.Mirror {
	t.Helper()
	now := time.Now()
	day := 24 * time.Hour
	m, maker := mirror.New(t), mirror.NewMaker(t, now.Add(-10*day), 5*day)
	kernel, initrd := bytes.Repeat([]byte("k"), 1<<20), bytes.Repeat([]byte("i"), 3<<20)
	m.Flatcar(maker, "3.0", kernel, initrd, now.Add(-day))
	m.Flatcar(maker, "1.0", kernel, initrd, now.Add(-9*day))
	m.Flatcar(maker, "2.0", kernel, initrd, now.Add(-8*day))
	dir := t.TempDir()
	described := filepath.Join(dir, "flatcar.yaml")
	require.NoError(t, os.WriteFile(described, []byte(mirror.FlatcarSystem(maker)), 0o600))
	systems, err := release.Load([]string{described})
	require.NoError(t, err)
	api.Images, err = depot.Open(depot.Config{
		Dir: filepath.Join(dir, "images"), Log: slog.New(slog.DiscardHandler), Now: time.Now,
		InUse: func() []string { return []string{"flatcar:stable:1.0:x86_64"} },
	})
	require.NoError(t, err)
	require.NoError(t, api.Images.Prepare())
	client, err := fetch.NewClient(fetch.Config{CA: m.CAFile, Mirrors: []string{m.URL}})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	api.Pull = (&pull.Puller{Depot: api.Images, Client: client, Systems: systems, Now: time.Now}).Pull
	return m
}

func TestProgress(t *testing.T) {
	at := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	for terminal, want := range map[bool]string{
		false: "flatcar:stable is at 1.0 now\nvmlinuz   0% of 10.0 MiB\nvmlinuz  50% of 10.0 MiB 2.5 MiB/s\nvmlinuz 100% of 10.0 MiB 2.5 MiB/s\nverifying vmlinuz\nwhole\ufffd\n",
		true: "flatcar:stable is at 1.0 now\n" +
			"\r\x1b[K[                        ] vmlinuz   0% of 10.0 MiB" +
			"\r\x1b[K[############            ] vmlinuz  50% of 10.0 MiB 2.5 MiB/s" +
			"\r\x1b[K[############            ] vmlinuz  50% of 10.0 MiB 2.5 MiB/s" +
			"\r\x1b[K[########################] vmlinuz 100% of 10.0 MiB 2.5 MiB/s" +
			"\nverifying vmlinuz\nwhole\ufffd\n",
	} {
		var b strings.Builder
		now := at
		p := newProgress(&b)
		p.terminal, p.now = terminal, func() time.Time { return now }
		p.tell(pull.Progress{Step: "version", Text: "flatcar:stable is at 1.0 now"})
		p.tell(pull.Progress{Step: "file", File: "vmlinuz", Done: 0, Total: 10 << 20})
		now = at.Add(2 * time.Second)
		p.tell(pull.Progress{Step: "file", File: "vmlinuz", Done: 5 << 20, Total: 10 << 20})
		p.tell(pull.Progress{Step: "file", File: "vmlinuz", Done: 5<<20 + 1, Total: 10 << 20})
		now = at.Add(4 * time.Second)
		p.tell(pull.Progress{Step: "file", File: "vmlinuz", Done: 10 << 20, Total: 10 << 20})
		p.tell(pull.Progress{Step: "verify", File: "vmlinuz"})
		p.tell(pull.Progress{Step: "done", Text: "whole\x1b"})
		require.Equal(t, want, b.String())
	}
}
