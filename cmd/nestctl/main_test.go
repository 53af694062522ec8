package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
	"github.com/nestboot/nestboot/pki/links"
	"github.com/nestboot/nestboot/pki/serving"
	"github.com/nestboot/nestboot/pki/trusted"
	"github.com/nestboot/nestboot/store"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"nestctl": main})
}

// TestScripts runs nestctl against the real API on a Unix socket.
func TestScripts(t *testing.T) {
	api := newAPI(t, lab.Need(t).IPXEDir())
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/script",
		Cmds:  map[string]func(*testscript.TestScript, bool, []string){"mode": mode},
		Setup: func(e *testscript.Env) error { return serve(t, e, api) },
	})
}

// TestTrustScripts does so with an authority of its own for each script, and
// certificates of another one in files.
func TestTrustScripts(t *testing.T) {
	bases := t.TempDir()
	for _, name := range []string{"snponly.efi", "ipxe-amd64.efi", "ipxe-arm64.efi"} { // what is compressed takes its time
		data, err := os.ReadFile(filepath.Join(lab.Need(t).IPXEDir(), name))
		if name == "ipxe-arm64.efi" && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(bases, name), data, 0o600))
	}
	testscript.Run(t, testscript.Params{
		Dir:  "testdata/trust",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"mode": mode, "tokens": tokens},
		Setup: func(e *testscript.Env) error {
			corporate(t, e.WorkDir)
			return serve(t, e, newAPI(t, bases))
		},
	})
}

// serve answers a script's nestctl.
func serve(t *testing.T, e *testscript.Env, api http.Handler) error {
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
}

// tokenForm is 43 characters with something else around them: a digest has more.
var tokenForm = regexp.MustCompile(`(?:^|[^A-Za-z0-9_-])([A-Za-z0-9_-]{43})(?:[^A-Za-z0-9_-]|$)`)

// tokens demands that the last output holds a token, and writes the first one
// to a file if one is named.
func tokens(ts *testscript.TestScript, neg bool, args []string) {
	token := ""
	if m := tokenForm.FindStringSubmatch(ts.ReadFile("stdout")); m != nil {
		token = m[1]
	}
	if (token == "") != neg {
		ts.Fatalf("a token in the output: %v", token != "")
	}
	for _, file := range args {
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(token+"\n"), 0o600))
	}
}

// corporate writes the authority of a customer: corp.pem, its machine's
// node.pem and node.key, and a list of revoked certificates.
func corporate(t *testing.T, dir string) {
	t.Helper()
	now := time.Now()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		return k
	}
	write := func(name, kind string, der []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	caKey, nodeKey := key(), key()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Corporate CA"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * 365 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	require.NoError(t, err)
	write("corp.pem", "CERTIFICATE", der)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "corp.der"), der, 0o600))
	ca, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	node := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node-7"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err = x509.CreateCertificate(rand.Reader, node, ca, nodeKey.Public(), caKey)
	require.NoError(t, err)
	write("node.pem", "CERTIFICATE", der)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(nodeKey)
	require.NoError(t, err)
	both := slices.Concat(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "node-key.pem"), both, 0o600))
	list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(24 * time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(2), RevocationTime: now}},
	}, ca, caKey)
	require.NoError(t, err)
	write("corp.crl", "X509 CRL", list)
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
		Addr: addr, Credential: boot.Credential{Kind: "set", Name: "rack1", Set: "rack1"},
	}
	p := boot.Plan{Action: boot.ActBoot, Machine: boot.Machine{Name: "node1"}, Image: boot.Image{Name: "flatcar"}}
	require.NoError(t, machines.Saw(r, p, "00000000000000b1", at))
	written(t, machines)
	journal.Record(boot.Event{Stage: boot.StageScript, Boot: "00000000000000b1", Addr: addr, Name: "flatcar", Duration: time.Millisecond, Bytes: 448}, at)
	journal.Record(boot.Event{Stage: boot.StageDone, Boot: "00000000000000b2", Addr: addr}, at.Add(time.Second))
	journal.Record(boot.Event{Stage: boot.StageDone, Boot: "00000000000000b1", Addr: addr}, at.Add(2*time.Second))
	api := &admin.API{
		Org: "7b0c8a3e-53c5-4f2e-9d0a-2f1f5f2a9c11", BootURL: "https://boot.test", HTTPURL: "http://boot.test",
		IPXEURL:  func(host string) string { return "https://" + host },
		Machines: machines, Journal: journal, Log: log, Now: time.Now, Version: "v1",
	}
	openTrust(t, api, dir, s, bases)
	return api
}

// openTrust opens all that says who may boot, and the sets.
func openTrust(t *testing.T, api *admin.API, dir string, s *store.Store, bases []string) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	var err error
	api.Authority, err = pki.Open(t.Context(), pki.Config{
		Dir: filepath.Join(dir, "pki"), Store: s, Hosts: []string{"boot.test"}, IPXE: "ipxe.test",
	})
	require.NoError(t, err)
	api.Trusted, err = trusted.Open(t.Context(), trusted.Config{Dir: filepath.Join(dir, "trusted"), Store: s})
	require.NoError(t, err)
	api.Links, err = links.Open(t.Context(), links.Config{Path: filepath.Join(dir, "links.secret"), Store: s})
	require.NoError(t, err)
	certs, err := serving.Open(t.Context(), serving.Config{Authority: api.Authority, Domain: "test"})
	require.NoError(t, err)
	api.Servers = certs.Status
	api.Roots = func() []*x509.Certificate { return []*x509.Certificate{certs.Root("boot.test")} }
	api.Identify = func(chain []*x509.Certificate, at time.Time) (pki.Identity, error) {
		if id, err := api.Authority.Verify(chain, at); err == nil {
			return id, nil
		}
		return api.Trusted.Verify(chain, at)
	}
	api.Explain = func(chain []*x509.Certificate, at time.Time) []pki.Step {
		return slices.Concat(api.Authority.Explain(chain, at), api.Trusted.Explain(chain, at))
	}
	bundles, err := artifact.ReadBases(bases)
	require.NoError(t, err)
	stock, err := artifact.OpenBases(t.Context(), bundles, filepath.Join(dir, "bases"), log)
	require.NoError(t, err)
	api.Artifacts, err = artifact.Open(t.Context(), artifact.Config{
		Dir: filepath.Join(dir, "sets"), URL: "https://ipxe.test", Store: s, Authority: api.Authority, Stock: stock, Log: log, Now: time.Now,
	})
	require.NoError(t, err)
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
