package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	pin "github.com/pin/tftp/v3"
	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/lab"
)

// running is a run of bootd in this process, on ports of its own.
type running struct {
	t      *testing.T
	dir    string
	config string
	ports  struct{ tftp, http, https, legacy, metrics string }
	log    *buffer
	cancel context.CancelFunc
	done   chan error
}

// buffer is a log that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newDaemon writes a whole configuration; extra lines are added to it.
func newDaemon(t *testing.T, extra string) *running {
	t.Helper()
	d := &running{t: t, dir: t.TempDir(), log: &buffer{}}
	d.config = filepath.Join(d.dir, "bootd.yaml")
	var taken []net.Listener // all at once, so that they differ
	for _, p := range []*string{&d.ports.http, &d.ports.https, &d.ports.legacy, &d.ports.metrics} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		*p, taken = l.Addr().String(), append(taken, l)
	}
	for _, l := range taken {
		require.NoError(t, l.Close())
	}
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	d.ports.tftp = c.LocalAddr().String()
	require.NoError(t, c.Close())
	d.copyIPXE("ipxe", "snponly.efi", "ipxe-amd64.efi") // what is compressed takes its time, with the race detector above all
	d.write("vmlinuz", "kernel")
	d.write("initrd", "initrd")
	d.write("m.bu", "variant: flatcar\nversion: 1.0.0\n")
	d.write("bootd.yaml", fmt.Sprintf(`domain: test
state_dir: state
listen: {tftp: %q, http: %q, https: %q, metrics: %q}
artifacts: {bases: [ipxe]}
images: [{name: lab, kernel: vmlinuz, initrds: [initrd]}]
butane: m.bu
%s`, d.ports.tftp, d.ports.http, d.ports.https, d.ports.metrics, extra))
	return d
}

// copyIPXE puts stock binaries into a folder beside the configuration.
func (d *running) copyIPXE(dir string, names ...string) {
	d.t.Helper()
	require.NoError(d.t, os.MkdirAll(filepath.Join(d.dir, dir), 0o700))
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(lab.Need(d.t).IPXEDir(), name))
		require.NoError(d.t, err)
		d.write(filepath.Join(dir, name), string(data))
	}
}

func (d *running) write(name, content string) {
	d.t.Helper()
	require.NoError(d.t, os.WriteFile(filepath.Join(d.dir, name), []byte(content), 0o600))
}

func (d *running) start() {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel, d.done = cancel, make(chan error, 1)
	d.t.Cleanup(func() { d.stop() })
	const answers = "bootd answers"
	before := strings.Count(d.log.String(), answers) // of an earlier run
	go func() { d.done <- run(ctx, options{config: d.config, stderr: d.log}) }()
	require.Eventually(d.t, func() bool { return strings.Count(d.log.String(), answers) > before }, 20*time.Second, 5*time.Millisecond)
}

func (d *running) stop() {
	d.t.Helper()
	if d.cancel != nil {
		d.cancel()
		d.cancel = nil
		require.NoError(d.t, <-d.done)
	}
}

func (d *running) waitLog(text string) {
	d.t.Helper()
	require.Eventually(d.t, func() bool { return strings.Contains(d.log.String(), text) }, 20*time.Second, 5*time.Millisecond, "no %q in the log", text)
}

// refused runs bootd and returns why it would not start.
func (d *running) refused() string {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 20*time.Second)
	defer cancel()
	err := run(ctx, options{config: d.config, stderr: d.log})
	require.Error(d.t, err)
	require.NoError(d.t, ctx.Err(), "it must refuse by itself")
	return err.Error()
}

func (d *running) tftp(name string) ([]byte, error) {
	c, err := pin.NewClient(d.ports.tftp)
	require.NoError(d.t, err)
	wt, err := c.Receive(name, "octet")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err = wt.WriteTo(&b)
	return b.Bytes(), err
}

func (d *running) get(url string) (int, string) {
	d.t.Helper()
	return d.ask(http.DefaultClient, http.MethodGet, url)
}

// edit replaces text in the configuration.
func (d *running) edit(old, with string) {
	d.t.Helper()
	text, err := os.ReadFile(d.config)
	require.NoError(d.t, err)
	require.Contains(d.t, string(text), old)
	d.write("bootd.yaml", strings.ReplaceAll(string(text), old, with))
}

// admin asks the admin API over its socket; the path starts behind the
// organization.
func (d *running) admin(method, path, body string, status int, out any) {
	d.t.Helper()
	got, data := d.adminAsk(method, path, body)
	require.Equal(d.t, status, got, "%s", data)
	if out != nil {
		require.NoError(d.t, json.Unmarshal(data, out))
	}
}

// adminBytes is an answer of the admin API that is no JSON.
func (d *running) adminBytes(path string) []byte {
	d.t.Helper()
	status, data := d.adminAsk(http.MethodGet, path, "")
	require.Equal(d.t, http.StatusOK, status, "%s", data)
	return data
}

func (d *running) adminAsk(method, path, body string) (int, []byte) {
	d.t.Helper()
	var dialer net.Dialer
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", filepath.Join(d.dir, "state/admin.sock"))
	}}}
	ask := func(method, path, body string) (int, []byte) {
		req, err := http.NewRequestWithContext(d.t.Context(), method, "http://bootd/api/v1/orgs"+path, strings.NewReader(body))
		require.NoError(d.t, err)
		res, err := c.Do(req)
		require.NoError(d.t, err)
		defer func() { _ = res.Body.Close() }()
		data, err := io.ReadAll(res.Body)
		require.NoError(d.t, err)
		return res.StatusCode, data
	}
	_, orgs := ask(http.MethodGet, "", "")
	org := regexp.MustCompile(`"id":"([0-9a-f-]{36})"`).FindSubmatch(orgs)
	require.Len(d.t, org, 2)
	return ask(method, "/"+string(org[1])+path, body)
}

// machines is the admin API's list of machines.
func (d *running) machines() string {
	d.t.Helper()
	var list json.RawMessage
	d.admin(http.MethodGet, "/machines", "", http.StatusOK, &list)
	return string(list)
}

// artifactSet is what the tests look at of a set.
type artifactSet struct {
	ISO   *string `json:"download_url_iso"`
	Files []struct {
		Name     string
		HoldsKey bool `json:"holds_key"`
	}
	UsedBy []struct{ Machine string } `json:"used_by"`
}

// create makes a set from the JSON of its spec.
func (d *running) create(spec string) artifactSet {
	d.t.Helper()
	var answer struct {
		Set artifactSet `json:"ipxe_boot_artifact"`
	}
	d.admin(http.MethodPost, "/ipxe_boot_artifacts", spec, http.StatusCreated, &answer)
	return answer.Set
}

// machineUUID is that of one of ten machines.
func machineUUID(digit string) string { return "4c4c4544-0042-3510-8052-b4c04f56443" + digit }

// bootURL is where one of ten machines asks for its script.
func bootURL(digit string) string {
	return "https://ipxe.test/ipxe/boot?uuid=" + machineUUID(digit) + "&mac=52-54-00-00-00-0" + digit + "&serial=&arch=x86_64&platform=efi&ip="
}

// ask sends a request without a body.
func (d *running) ask(c *http.Client, method, url string) (int, string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, url, http.NoBody)
	require.NoError(d.t, err)
	res, err := c.Do(req)
	require.NoError(d.t, err)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	require.NoError(d.t, err)
	return res.StatusCode, string(body)
}

// client finds both names at bootd's HTTPS port, with the certificate in a
// set's folder or, if that is empty, without.
func (d *running) client(set string) *http.Client {
	d.t.Helper()
	cfg := &tls.Config{RootCAs: x509.NewCertPool()}
	pem, err := os.ReadFile(filepath.Join(d.dir, "state/pki/root.pem"))
	require.NoError(d.t, err)
	require.True(d.t, cfg.RootCAs.AppendCertsFromPEM(pem))
	if set != "" {
		path := filepath.Join(d.dir, "state/sets", set, "client.pem")
		pair, err := tls.LoadX509KeyPair(path, path)
		require.NoError(d.t, err)
		cfg.Certificates = []tls.Certificate{pair}
	}
	var dialer net.Dialer
	tr := &http.Transport{TLSClientConfig: cfg, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, d.ports.https)
	}}
	d.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// dialer connects somewhere.
type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// dialTo connects to one address, whatever is asked for.
func dialTo(addr string) dialer {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}
}

// watchClose closes a channel when the other side has closed a connection.
func watchClose(dial dialer, closed chan struct{}) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		return &watched{Conn: c, once: &sync.Once{}, closed: closed}, err
	}
}

type watched struct {
	net.Conn
	once   *sync.Once
	closed chan struct{}
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.once.Do(func() {
			select {
			case <-w.closed:
			default:
				close(w.closed)
			}
		})
	}
	return n, err
}
