package admin

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/artifact"
	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/inventory"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/links"
	"github.com/nestboot/nestboot/pki/serving"
	"github.com/nestboot/nestboot/pki/trusted"
	"github.com/nestboot/nestboot/store"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	org  = "7b0c8a3e-53c5-4f2e-9d0a-2f1f5f2a9c11"
	base = "/api/v1/orgs/" + org
)

// start serves the API. Without bases, no set can be made.
func start(t *testing.T, bases ...string) (*API, *httptest.Server) {
	t.Helper()
	a, srv, _ := startOn(t, bases...)
	return a, srv
}

// startOn is start for who closes the store.
func startOn(t *testing.T, bases ...string) (*API, *httptest.Server, *store.Store) {
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
	a := &API{
		Org: org, BootURL: "https://boot.test", HTTPURL: "http://boot.test", IPXEURL: func(host string) string { return "https://" + host },
		Machines: machines, Journal: journal, Log: log, Now: time.Now, Version: "v1",
	}
	a.openTrust(t, dir, s)
	a.Artifacts = openSets(t, dir, a.Authority, s, bases...)
	srv := httptest.NewServer(a)
	t.Cleanup(srv.Close)
	return a, srv, s
}

// openTrust opens all that says who may boot.
func (a *API) openTrust(t *testing.T, dir string, s *store.Store) {
	t.Helper()
	var err error
	a.Authority, err = pki.Open(t.Context(), pki.Config{Dir: filepath.Join(dir, "pki"), Store: s, Hosts: []string{"boot.test"}, IPXE: "ipxe.test"})
	require.NoError(t, err)
	a.Trusted, err = trusted.Open(t.Context(), trusted.Config{Dir: filepath.Join(dir, "trusted"), Store: s})
	require.NoError(t, err)
	a.Links, err = links.Open(t.Context(), links.Config{Path: filepath.Join(dir, "links.secret"), Store: s})
	require.NoError(t, err)
	a.Servers = func() []serving.Status { // as of now: nobody runs it
		certs, err := serving.Open(t.Context(), serving.Config{Authority: a.Authority, Domain: "test"})
		require.NoError(t, err)
		return certs.Status()
	}
	a.Identify, a.Explain = a.Authority.Verify, a.Authority.Explain
	a.Roots = func() []*x509.Certificate { return nil }
}

// someBases is a folder with stock iPXE for UEFI alone: what is compressed takes
// its time.
func someBases(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"snponly.efi", "ipxe-amd64.efi"} {
		data, err := os.ReadFile(filepath.Join(lab.Need(t).IPXEDir(), name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	return dir
}

// openSets are the artifact sets of an installation.
func openSets(t *testing.T, dir string, ca *pki.Authority, s *store.Store, bases ...string) *artifact.Sets {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
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

func (a *API) fill(t *testing.T) {
	t.Helper()
	at := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	r := boot.Request{
		UUID: "4c4c4544-0042-3510-8052-b4c04f564433", MAC: "52:54:00:00:00:01", Serial: "S1", Arch: boot.AMD64, Platform: boot.EFI,
		Addr: netip.MustParseAddr("10.77.0.57"), Credential: boot.Credential{Set: "rack1"},
	}
	p := boot.Plan{Action: boot.ActBoot, Machine: boot.Machine{Name: "node1"}, Image: boot.Image{Name: "flatcar"}}
	require.NoError(t, a.Machines.Saw(r, p, "b1", at))
	written(t, a.Machines)
	a.Journal.Record(boot.Event{Stage: boot.StageScript, Boot: "b1", Machine: r.UUID, Name: "flatcar"}, at)
	a.Journal.Record(boot.Event{Stage: boot.StageDone, Boot: "b1", Machine: r.UUID}, at.Add(time.Second))
}

func ask(t *testing.T, srv *httptest.Server, method, path string, body ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(strings.Join(body, "")))
	require.NoError(t, err)
	res, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, "application/json", res.Header.Get("Content-Type"))
	require.True(t, json.Valid(data), "JSON whatever the answer")
	return res.StatusCode, string(data)
}

func TestAnswersGolden(t *testing.T) {
	a, srv := start(t)
	_, empty := ask(t, srv, http.MethodGet, base+"/machines")
	require.JSONEq(t, `{"machines":[]}`, empty, "no machines is an empty list")
	_, empty = ask(t, srv, http.MethodGet, base+"/events")
	require.JSONEq(t, `{"events":[]}`, empty)
	a.fill(t)
	for name, tt := range map[string]struct {
		path   string
		status int
	}{
		"orgs":            {"/api/v1/orgs", 200},
		"machines":        {base + "/machines", 200},
		"machine":         {base + "/machines/1", 200},
		"events":          {base + "/events", 200},
		"events-since":    {base + "/events?since=1795230000000000", 200},
		"no-machine":      {base + "/machines/2", 404},
		"no-organization": {"/api/v1/orgs/x/machines", 404},
		"no-path":         {"/x", 404},
		"bad-since":       {base + "/events?since=x", 422},
	} {
		t.Run(name, func(t *testing.T) {
			status, got := ask(t, srv, http.MethodGet, tt.path)
			require.Equal(t, tt.status, status)
			golden(t, name, got)
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".json")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestPathsAsClientsSendThem(t *testing.T) {
	a, srv := start(t)
	a.fill(t)
	_, want := ask(t, srv, http.MethodGet, base+"/machines")
	for _, path := range []string{"/api/v1//orgs/" + org + "/machines", base + "/machines/", "//api//v1/orgs/" + org + "//machines//"} {
		status, got := ask(t, srv, http.MethodGet, path)
		require.Equal(t, http.StatusOK, status, path)
		require.Equal(t, want, got, path)
	}
	status, body := ask(t, srv, http.MethodGet, base+"/machines/4C4C4544-0042-3510-8052-B4C04F564433")
	require.Equal(t, http.StatusOK, status, body)
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		status, body := ask(t, srv, method, base+"/machines")
		require.Equal(t, http.StatusMethodNotAllowed, status)
		require.Contains(t, body, `"code":"method_not_allowed"`)
	}
}

func TestEventStream(t *testing.T) {
	a, srv := start(t)
	a.fill(t)
	first := a.Journal.Since(0)[0]
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+base+"/events", http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Last-Event-ID", strconv.FormatInt(first.ID, 10))
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	require.Equal(t, "text/event-stream", res.Header.Get("Content-Type"))
	lines := bufio.NewScanner(res.Body)
	next := func() boot.Event {
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var e boot.Event
				require.NoError(t, json.Unmarshal([]byte(data), &e))
				return e
			}
		}
		require.NoError(t, lines.Err())
		require.Fail(t, "the stream ended")
		return boot.Event{}
	}
	require.Equal(t, boot.StageDone, next().Stage, "what came after the event that the client knows")
	a.Journal.Record(boot.Event{Stage: boot.StageKernel, Boot: "b2"}, time.Now())
	require.Equal(t, "b2", next().Boot, "and what comes")
}

// written lets the register write what waits.
func written(t *testing.T, m *inventory.Machines) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m.Run(ctx)
}
