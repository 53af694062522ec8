package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/admin"
	"github.com/nestboot/nestboot/artifact"
	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/inventory"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"nestctl": main})
}

// TestScripts runs nestctl against the real API on a Unix socket.
func TestScripts(t *testing.T) {
	api := newAPI(t, lab.Need(t).IPXEDir())
	testscript.Run(t, testscript.Params{
		Dir:  "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"mode": mode},
		Setup: func(e *testscript.Env) error {
			e.Setenv("NESTBOOT_SOCKET", filepath.Join(e.WorkDir, "admin.sock"))
			e.Setenv("TZ", "UTC")
			l, err := net.Listen("unix", filepath.Join(e.WorkDir, "admin.sock"))
			if err != nil {
				return err
			}
			srv := &http.Server{Handler: api, ReadHeaderTimeout: time.Second}
			served := make(chan error, 1)
			go func() { served <- srv.Serve(l) }()
			e.Defer(func() {
				require.NoError(t, srv.Close())
				require.ErrorIs(t, <-served, http.ErrServerClosed)
			})
			return nil
		},
	})
}

// mode demands that a file has the mode.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode FILE 0600")
	}
	st, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", st.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

// newAPI is bootd's API with a real store. Without bases, no set can be made.
func newAPI(t *testing.T, bases ...string) *admin.API {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "store")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	log := slog.New(slog.DiscardHandler)
	machines, err := inventory.OpenMachines(s, log)
	require.NoError(t, err)
	journal, err := inventory.OpenJournal(t.Context(), s, log, nil)
	require.NoError(t, err)
	at := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	addr := netip.MustParseAddr("10.77.0.57")
	r := boot.Request{
		UUID: "4c4c4544-0042-3510-8052-b4c04f564433", MAC: "52:54:00:00:00:01", Arch: boot.AMD64, Platform: boot.EFI,
		Addr: addr, Credential: boot.Credential{Set: "rack1"},
	}
	p := boot.Plan{Action: boot.ActBoot, Machine: boot.Machine{Name: "node1"}, Image: boot.Image{Name: "flatcar"}}
	require.NoError(t, machines.Saw(r, p, "00000000000000b1", at))
	written(t, machines)
	journal.Record(boot.Event{Stage: boot.StageScript, Boot: "00000000000000b1", Addr: addr, Name: "flatcar", Duration: time.Millisecond, Bytes: 448}, at)
	journal.Record(boot.Event{Stage: boot.StageDone, Boot: "00000000000000b2", Addr: addr}, at.Add(time.Second))
	journal.Record(boot.Event{Stage: boot.StageDone, Boot: "00000000000000b1", Addr: addr}, at.Add(2*time.Second))
	return &admin.API{
		Org: "7b0c8a3e-53c5-4f2e-9d0a-2f1f5f2a9c11", BootURL: "https://boot.test",
		Machines: machines, Journal: journal, Artifacts: openSets(t, dir, s, bases), Log: log, Version: "v1",
	}
}

func openSets(t *testing.T, dir string, s *store.Store, bases []string) *artifact.Sets {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	ca, err := pki.Open(t.Context(), pki.Config{Dir: filepath.Join(dir, "pki"), Store: s, Hosts: []string{"ipxe.test"}})
	require.NoError(t, err)
	bundles, err := artifact.ReadBases(bases)
	require.NoError(t, err)
	stock, err := artifact.OpenBases(t.Context(), bundles, filepath.Join(dir, "bases"), log)
	require.NoError(t, err)
	sets, err := artifact.Open(t.Context(), artifact.Config{
		Dir: filepath.Join(dir, "sets"), URL: "https://ipxe.test", Store: s, Authority: ca, Stock: stock, Log: log, Now: time.Now,
	})
	require.NoError(t, err)
	return sets
}

func TestFollowComesAgainAfterItWasDropped(t *testing.T) {
	api := newAPI(t)
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "admin.sock"))
	require.NoError(t, err)
	streams := 0
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Accept") != "text/event-stream" {
			api.ServeHTTP(w, req)
			return
		}
		if streams++; streams == 1 { // the first listener is told that it fell behind
			_, _ = w.Write([]byte("id: 1\ndata: {\"id\":1,\"stage\":\"script\"}\n\nevent: dropped\ndata: {}\n\n"))
			return
		}
		require.Equal(t, "1", req.Header.Get("Last-Event-ID"), "it goes on where it was")
		api.ServeHTTP(w, req)
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { require.NoError(t, srv.Close()) })
	c, err := dial(t.Context(), l.Addr().String())
	require.NoError(t, err)
	enough := errors.New("enough")
	var seen []boot.Stage
	err = c.follow(t.Context(), 0, func(e boot.Event) error {
		if seen = append(seen, e.Stage); len(seen) == 4 {
			return enough
		}
		return nil
	})
	require.ErrorIs(t, err, enough)
	require.Equal(t, []boot.Stage{boot.StageScript, boot.StageScript, boot.StageDone, boot.StageDone}, seen)
}

// written lets the register write what waits.
func written(t *testing.T, m *inventory.Machines) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m.Run(ctx)
}
