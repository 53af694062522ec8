package httpboot

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/ignition"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

const (
	testUUID  = "4c4c4544-0042-3510-8052-b4c04f564433"
	testQuery = "/ipxe/boot?uuid=" + testUUID + "&mac=52-54-00-00-00-01&serial=&arch=x86_64&platform=efi&ip=10.0.0.1"
	testToken = "Tm90IGEgc2VjcmV0LCBidXQgb2YgaXRzIGxlbmd0aCE"
	butane    = "variant: flatcar\nversion: 1.0.0\n"
)

// world is a running Server with real certificates, grants and store.
type world struct {
	t         *testing.T
	server    *Server
	authority *pki.Authority
	set       pki.MachineCredential
	who       who
	ec        *tls.Certificate // of the server, for those who can do it; may be nil
	plain     string           // address
	secure    string           // address
	old       string           // address of the legacy listener
	log       *bytes.Buffer
	skew      atomic.Int64 // added to the server's clock
	exposed   atomic.Bool
	dropped   atomic.Bool // the names for machines are gone
	imagePath string
	cancel    context.CancelFunc
	done      chan error

	mu        sync.Mutex
	events    []boot.Event
	baseError error
	inventory boot.Inventory
	limited   bool
	finished  []string
	came      boot.Credential // of the last machine that was answered
	logMu     sync.Mutex
}

func (w *world) Write(p []byte) (int, error) {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	return w.log.Write(p)
}

func start(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, log: &bytes.Buffer{}, done: make(chan error, 1)}
	now := func() time.Time { return time.Now().Add(time.Duration(w.skew.Load())) }
	log := slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "store")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	w.authority, err = pki.Open(t.Context(), pki.Config{
		Dir: filepath.Join(dir, "pki"), Store: s, Hosts: []string{"boot.test", "ipxe.test"}, Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Log: log, Now: now,
	})
	require.NoError(t, err)
	w.set, err = w.authority.IssueMachine(t.Context(), "rack1", time.Time{})
	require.NoError(t, err)
	grants, err := pki.OpenGrants(t.Context(), s, log, now)
	require.NoError(t, err)
	w.imagePath = filepath.Join(dir, "vmlinuz")
	require.NoError(t, os.WriteFile(w.imagePath, bytes.Repeat([]byte("kernel!!"), 1<<19), 0o600))
	w.inventory = boot.Inventory{Machines: map[string]boot.Machine{testUUID: {UUID: testUUID, Name: "node1"}}, Default: "lab", Images: map[string]boot.Image{
		"lab": {Name: "lab", Arch: boot.AMD64, Kernel: boot.File{Name: "vmlinuz"}},
	}}
	w.server = &Server{Grants: grants, Log: log, Now: now, Grace: 10 * time.Second, Site: w.site(t)}
	w.serve()
	return w
}

func (w *world) site(t *testing.T) Site {
	base, err := ignition.Compile([]byte(butane))
	require.NoError(t, err)
	return Site{
		Inventory: func() boot.Inventory { w.mu.Lock(); defer w.mu.Unlock(); return w.inventory },
		Base:      func() (ignition.Base, error) { w.mu.Lock(); defer w.mu.Unlock(); return base, w.baseError },
		Artifact: func(_ context.Context, name string, secure bool) (Artifact, error) {
			switch {
			case name == "rack1/snponly.efi":
				return Artifact{Data: []byte("MZ binary"), SHA256: digest([]byte("MZ binary"))}, nil
			case name == "rack1/big":
				return Artifact{Data: bigFile, SHA256: digest(bigFile)}, nil
			case name == "rack1/autoexec.ipxe" && (secure || !w.exposed.Load()):
				return Artifact{}, &Withheld{Code: "key-not-exposed", Reason: "it holds a private key: do this"}
			case name == "rack1/autoexec.ipxe":
				return Artifact{Data: []byte("#!ipxe key"), SHA256: digest([]byte("#!ipxe key"))}, nil
			}
			return Artifact{}, fs.ErrNotExist
		},
		Download: func(_ context.Context, token, name string) (Artifact, error) {
			switch {
			case token != testToken:
				return Artifact{}, &pki.Refusal{Code: pki.CodeUnknownToken, Reason: "no set has the token of this address"}
			case name != "rack1.iso" && name != "rack1.raw":
				return Artifact{}, fs.ErrNotExist
			case name == "rack1.raw":
				return Artifact{}, &Withheld{Code: "set-expired", Reason: "set rack1 expired"}
			}
			return Artifact{Data: []byte("an image"), SHA256: digest([]byte("an image"))}, nil
		},
		Hosts:       w.host,
		Roots:       func() []*x509.Certificate { return []*x509.Certificate{w.authority.Root()} },
		Identify:    w.who.identify(w.authority),
		IdentifyURL: w.who.identifyURL,
		UEFI:        w.who.uefi,
		Good:        w.who.good,
		Changed:     w.who.changes,
		Member: func(id pki.Identity, machine string) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.limited && machine != testUUID {
				return fmt.Errorf("%s is limited to other machines", id.Name)
			}
			return nil
		},
		Image: func(image, file string) (ImageFile, bool) {
			if image != "lab" || file != "vmlinuz" {
				return ImageFile{}, false
			}
			data, err := os.ReadFile(w.imagePath)
			return ImageFile{
				Kernel: true, SHA256: digest(data), Modified: time.Unix(1_700_000_000, 0),
				Open: func() (io.ReadSeeker, error) {
					f, err := os.Open(w.imagePath)
					if err == nil {
						t.Cleanup(func() { _ = f.Close() })
					}
					return f, err
				},
			}, err == nil || os.IsNotExist(err)
		},
		Begin: func(boot.Request) string { return "b00t" },
		Saw: func(r boot.Request, _ boot.Plan, _ string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.came = r.Credential
		},
		Done: func(uuid, _ string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.finished = append(w.finished, uuid)
		},
		Record: func(e boot.Event) { w.mu.Lock(); defer w.mu.Unlock(); w.events = append(w.events, e) },
	}
}

func (w *world) serve() {
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	secure, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	legacy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	w.plain, w.secure, w.old = plain.Addr().String(), secure.Addr().String(), legacy.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	go func() { w.done <- w.server.Serve(ctx, plain, secure, legacy) }()
	w.t.Cleanup(func() {
		cancel()
		require.NoError(w.t, <-w.done)
		close(w.done)
	})
}

// client is an HTTP client that finds both names at the test server.
type client struct {
	cert   *tls.Certificate
	config *tls.Config
	from   string // source address
	addr   string // of the server; empty: its TLS port
}

func (w *world) client(c client) *http.Client {
	cfg := c.config
	if cfg == nil {
		cfg = &tls.Config{}
	}
	cfg.RootCAs = x509.NewCertPool()
	cfg.RootCAs.AddCert(w.authority.Root())
	cfg.Time = w.server.Now
	if c.cert != nil {
		cfg.Certificates = []tls.Certificate{*c.cert}
	}
	d := net.Dialer{}
	if c.from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(c.from)}
	}
	tr := &http.Transport{
		TLSClientConfig: cfg,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return d.DialContext(ctx, network, cmp.Or(c.addr, w.secure))
		},
	}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (w *world) setCert() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{w.set.Certificate.Raw}, PrivateKey: w.set.Key}
}

type answer struct {
	status int
	body   string
	header http.Header
}

func (w *world) do(c *http.Client, method, url string, header ...string) answer {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, url, http.NoBody)
	require.NoError(w.t, err)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	res, err := c.Do(req)
	require.NoError(w.t, err)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	require.NoError(w.t, err)
	require.NotEqual(w.t, int64(-1), res.ContentLength, "every answer has a Content-Length")
	require.False(w.t, res.StatusCode >= 300 && res.StatusCode < 400 && res.StatusCode != http.StatusNotModified, "never a redirect: %s", res.Status)
	return answer{res.StatusCode, string(body), res.Header}
}

// event waits for an event of a stage whose code, detail or error holds text:
// it may be recorded after the client has its answer.
func (w *world) event(stage boot.Stage, text string) boot.Event {
	w.t.Helper()
	var found boot.Event
	require.Eventually(w.t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, e := range slices.Backward(w.events) {
			if e.Stage == stage && strings.Contains(strings.Join([]string{e.Code, e.Detail, e.Error}, "\n"), text) {
				found = e
				return true
			}
		}
		return false
	}, 5*time.Second, time.Millisecond, "no event %s with %q", stage, text)
	return found
}

// recorded demands that the stage comes to stand in the events n times.
func (w *world) recorded(stage boot.Stage, n int, why string) {
	w.t.Helper()
	require.Eventually(w.t, func() bool { return w.count(stage) == n }, 5*time.Second, time.Millisecond, why)
}

func (w *world) count(stage boot.Stage) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Stage == stage {
			n++
		}
	}
	return n
}

// selfSigned is a client certificate of nobody we know.
func selfSigned(t *testing.T) *tls.Certificate {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "rack1"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	require.NoError(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func between(t *testing.T, s, before, after string) string {
	t.Helper()
	_, rest, ok := strings.Cut(s, before)
	require.True(t, ok, "%q in %q", before, s)
	out, _, ok := strings.Cut(rest, after)
	require.True(t, ok)
	return out
}
