package main

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
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
	ports  struct{ tftp, http, https, metrics string }
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
func newDaemon(t *testing.T, artifacts, extra string) *running {
	t.Helper()
	d := &running{t: t, dir: t.TempDir(), log: &buffer{}}
	d.config = filepath.Join(d.dir, "bootd.yaml")
	for _, p := range []*string{&d.ports.http, &d.ports.https, &d.ports.metrics} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		*p = l.Addr().String()
		require.NoError(t, l.Close())
	}
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	d.ports.tftp = c.LocalAddr().String()
	require.NoError(t, c.Close())
	d.write("vmlinuz", "kernel")
	d.write("initrd", "initrd")
	d.write("m.bu", "variant: flatcar\nversion: 1.0.0\n")
	d.write("bootd.yaml", fmt.Sprintf(`domain: test
state_dir: state
listen: {tftp: %q, http: %q, https: %q, metrics: %q}
artifacts: {set: rack1, ipxe_dir: %q%s}
images: [{name: lab, kernel: vmlinuz, initrds: [initrd]}]
butane: m.bu
%s`, d.ports.tftp, d.ports.http, d.ports.https, d.ports.metrics, lab.Need(t).IPXEDir(), artifacts, extra))
	return d
}

func (d *running) write(name, content string) {
	d.t.Helper()
	require.NoError(d.t, os.WriteFile(filepath.Join(d.dir, name), []byte(content), 0o600))
}

func (d *running) start() {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel, d.done = cancel, make(chan error, 1)
	go func() { d.done <- run(ctx, options{config: d.config, stderr: d.log}) }()
	d.t.Cleanup(func() { d.stop() })
	d.waitLog("bootd answers")
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
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(d.t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(d.t, err)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	require.NoError(d.t, err)
	return res.StatusCode, string(body)
}

func TestStartServeStopStart(t *testing.T) {
	d := newDaemon(t, ", expose_key_over: [tftp]", "")
	d.start()
	require.Contains(t, d.log.String(), "readable by anybody on the network")

	efi, err := d.tftp("rack1/snponly.efi")
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(efi, []byte("MZ")))
	script, err := d.tftp("rack1/autoexec.ipxe")
	require.NoError(t, err)
	require.True(t, bytes.Contains(script, []byte("set privkey:hexraw")))
	bare, err := d.tftp("autoexec.ipxe")
	require.NoError(t, err)
	require.Equal(t, script, bare)
	status, _ := d.get("http://" + d.ports.http + "/rack1/autoexec.ipxe")
	require.Equal(t, http.StatusForbidden, status, "exposed over TFTP is not exposed over HTTP")

	for path, want := range map[string]string{
		"/healthz": "ok", "/readyz": "ok", "/debug/pprof/cmdline": "",
		"/metrics": `nestboot_boot_stage_total{code="",stage="tftp-done"} 3`,
	} {
		status, body := d.get("http://" + d.ports.metrics + path)
		require.Equal(t, http.StatusOK, status, path)
		require.Contains(t, body, want)
	}
	d.stop()
	d.start()
	again, err := d.tftp("rack1/autoexec.ipxe")
	require.NoError(t, err)
	require.Equal(t, script, again, "a restart changes no artifact")
}

func TestT14_KeyOverTFTPNeedsTheSetting(t *testing.T) {
	d := newDaemon(t, "", "")
	d.start()
	for _, name := range []string{"rack1/autoexec.ipxe", "autoexec.ipxe"} {
		_, err := d.tftp(name)
		require.ErrorContains(t, err, "artifacts.expose_key_over: [tftp]", "the machine's console names the setting")
	}
	d.waitLog("set artifacts.expose_key_over to include tftp")
	path := filepath.Join(d.dir, "state/sets/rack1")
	pair, err := tls.LoadX509KeyPair(filepath.Join(path, "client.pem"), filepath.Join(path, "client.pem"))
	require.NoError(t, err)
	key := x509.MarshalPKCS1PrivateKey(pair.PrivateKey.(*rsa.PrivateKey))
	entries, err := os.ReadDir(path)
	require.NoError(t, err)
	require.Len(t, entries, 4)
	for _, e := range entries { // all that the set has on disk
		data, err := d.tftp("rack1/" + e.Name())
		_, body := d.get("http://" + d.ports.http + "/rack1/" + e.Name())
		require.False(t, err == nil && holdsKey(data, key), e.Name())
		require.False(t, holdsKey([]byte(body), key), e.Name())
	}
}

// holdsKey finds a private key as DER, in hexadecimal or in PEM.
func holdsKey(data, key []byte) bool {
	return bytes.Contains(data, key) || bytes.Contains(bytes.ToLower(data), []byte(hex.EncodeToString(key))) || bytes.Contains(data, []byte("PRIVATE KEY"))
}

func TestT33_MetricsAreOnLoopbackOnly(t *testing.T) {
	d := newDaemon(t, "", "")
	d.start()
	rebound, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+d.ports.metrics+"/debug/pprof/cmdline", http.NoBody)
	require.NoError(t, err)
	rebound.Host = "evil.example"
	res, err := http.DefaultClient.Do(rebound)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusForbidden, res.StatusCode)
	for _, addr := range []string{d.ports.http, d.ports.https} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		c := &http.Client{Transport: tr}
		scheme := "http://"
		if addr == d.ports.https {
			scheme = "https://"
		}
		for _, path := range []string{"/metrics", "/debug/pprof/", "/healthz", "/api/v1/orgs"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+addr+path, http.NoBody)
			require.NoError(t, err)
			res, err := c.Do(req)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			require.Equal(t, http.StatusNotFound, res.StatusCode, path)
		}
		tr.CloseIdleConnections()
	}
}

func TestReloadTakesOverOrLeavesAsItWas(t *testing.T) {
	d := newDaemon(t, "", "")
	d.start()
	hup := func() { require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP)) }
	d.write("m.bu", "variant: flatcar\nversion: 1.0.0\nnonsense: 1\n")
	hup()
	d.waitLog("configuration was not reloaded")
	require.Contains(t, d.log.String(), "m.bu")
	status, _ := d.get("http://" + d.ports.metrics + "/readyz")
	require.Equal(t, http.StatusOK, status, "what ran goes on")
	d.write("m.bu", "variant: flatcar\nversion: 1.0.0\n")
	d.edit("set: rack1", "set: rack2")
	hup()
	d.waitLog("configuration was reloaded")
	d.waitLog("settings=[artifacts]")
}

func TestReloadBringsTheFirstImage(t *testing.T) {
	d := newDaemon(t, "", "")
	text, err := os.ReadFile(d.config)
	require.NoError(t, err)
	without, _, found := strings.Cut(string(text), "images:")
	require.True(t, found)
	d.write("bootd.yaml", without)
	d.start()
	ask := func() string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			"https://ipxe.test/ipxe/boot?uuid=4c4c4544-0042-3510-8052-b4c04f564431&mac=52-54-00-00-00-01&serial=&arch=x86_64&platform=efi&ip=", http.NoBody)
		require.NoError(t, err)
		res, err := d.client(true).Do(req)
		require.NoError(t, err)
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return string(body)
	}
	require.Contains(t, ask(), "(no-image)")
	d.write("bootd.yaml", string(text))
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	d.waitLog("configuration was reloaded")
	require.Contains(t, ask(), "\nkernel ")
}

func TestSystemdIsNotified(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	t.Setenv("NOTIFY_SOCKET", path)
	d := newDaemon(t, "", "")
	d.start()
	d.stop()
	for _, want := range []string{"READY=1", "STOPPING=1"} {
		buf := make([]byte, 100)
		n, err := l.Read(buf)
		require.NoError(t, err)
		require.Equal(t, want, string(buf[:n]))
	}
}

// TestBadInputStopsTheStart checks that each fault is one line that names the
// fix, and that nothing is left behind.
func TestBadInputStopsTheStart(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(t *testing.T, d *running)
		want    []string
	}{
		"busy TFTP port": {func(t *testing.T, d *running) {
			c, err := net.ListenPacket("udp", d.ports.tftp)
			require.NoError(t, err)
			t.Cleanup(func() { _ = c.Close() })
		}, []string{"listen.tftp: ", "is taken by another program", "choose another port"}},
		"busy HTTPS port": {func(t *testing.T, d *running) {
			l, err := net.Listen("tcp", d.ports.https)
			require.NoError(t, err)
			t.Cleanup(func() { _ = l.Close() })
		}, []string{"listen.https: ", "is taken by another program"}},
		"unreadable image": {func(t *testing.T, d *running) {
			require.NoError(t, os.Remove(filepath.Join(d.dir, "vmlinuz")))
			require.NoError(t, os.Mkdir(filepath.Join(d.dir, "vmlinuz"), 0o700))
		}, []string{"image lab: kernel: ", "not a regular file"}},
		"Butane is a pipe": {func(t *testing.T, d *running) {
			require.NoError(t, os.Remove(filepath.Join(d.dir, "m.bu")))
			require.NoError(t, syscall.Mkfifo(filepath.Join(d.dir, "m.bu"), 0o600))
		}, []string{"m.bu is not a regular file"}},
		"invalid Butane": {func(_ *testing.T, d *running) { d.write("m.bu", "variant: flatcar\nversion: 1.0.0\nstorag: {}\n") }, []string{"butane ", "m.bu", "storag"}},
		"no iPXE":        {func(t *testing.T, d *running) { d.edit(lab.Need(t).IPXEDir(), d.dir) }, []string{"artifacts.ipxe_dir: ", "does not exist: install Debian's package ipxe"}},
		"foreign iPXE": {func(t *testing.T, d *running) {
			d.edit(lab.Need(t).IPXEDir(), d.dir)
			for _, f := range []string{"snponly.efi", "ipxe-amd64.efi"} {
				data, err := os.ReadFile(filepath.Join(lab.Need(t).IPXEDir(), f))
				require.NoError(t, err)
				d.write(f, string(append(data, data...))) // two fingerprints
			}
		}, []string{"2 times instead of once", "want a stock binary"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t, "", "")
			tt.prepare(t, d)
			err := d.refused()
			for _, want := range tt.want {
				require.Contains(t, err, want)
			}
			require.NoDirExists(t, filepath.Join(d.dir, "state"), "a start that was refused leaves nothing behind")
		})
	}
}

// edit replaces text in the configuration.
func (d *running) edit(old, with string) {
	d.t.Helper()
	text, err := os.ReadFile(d.config)
	require.NoError(d.t, err)
	require.Contains(d.t, string(text), old)
	d.write("bootd.yaml", strings.ReplaceAll(string(text), old, with))
}

func TestT30_StateOfOthersIsRefused(t *testing.T) {
	d := newDaemon(t, "", "")
	state := filepath.Join(d.dir, "state")
	require.NoError(t, os.Mkdir(state, 0o700))
	require.NoError(t, os.Chmod(state, 0o755)) // the umask does not matter
	require.Contains(t, d.refused(), "chmod 0700 "+state)
	require.NoError(t, os.Chmod(state, 0o700))
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chown(state, 1, 1))
		require.Contains(t, d.refused(), "belongs to user 1 and bootd runs as 0")
		require.NoError(t, os.Chown(state, 0, 0))
	}
	d.start()
	require.NoError(t, filepath.WalkDir(state, func(path string, _ os.DirEntry, err error) error {
		require.NoError(t, err)
		st, err := os.Lstat(path)
		require.NoError(t, err)
		require.Zero(t, st.Mode().Perm()&0o077, path)
		return nil
	}))
}

func TestFullDiskStopsTheStart(t *testing.T) {
	d := newDaemon(t, "", "")
	state := filepath.Join(d.dir, "state")
	mountTmpfs(t, state, "size=1m")
	require.Contains(t, d.refused(), "make room there")
}

func TestAnotherBootdIsNotDisturbed(t *testing.T) {
	d := newDaemon(t, "", "")
	d.start()
	second := newDaemon(t, "", "")
	second.edit("state_dir: state", "state_dir: "+filepath.Join(d.dir, "state"))
	require.Contains(t, second.refused(), "another bootd answers on")
	status, _ := d.get("http://" + d.ports.metrics + "/readyz")
	require.Equal(t, http.StatusOK, status)
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false) // as kill -9 leaves it
	require.NoError(t, l.Close())
	again, err := listenAdmin(t.Context(), path)
	require.NoError(t, err)
	require.NoError(t, again.Close())

	require.NoError(t, os.WriteFile(path, []byte("precious"), 0o600))
	_, err = listenAdmin(t.Context(), path)
	require.ErrorContains(t, err, "is not a socket: remove it")
	_, err = listenAdmin(t.Context(), "/"+strings.Repeat("x", 120))
	require.ErrorContains(t, err, "longer than the 107 bytes")
}

func TestServerCertificateNamesBothHosts(t *testing.T) {
	d := newDaemon(t, "", "addresses: [127.0.0.1]\n")
	d.start()
	pem, err := os.ReadFile(filepath.Join(d.dir, "state/pki/root.pem"))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(pem))
	for _, name := range []string{"boot.test", "ipxe.test", "127.0.0.1"} {
		c, err := tls.Dial("tcp", d.ports.https, &tls.Config{RootCAs: roots, ServerName: name})
		require.NoError(t, err, name)
		chain := c.ConnectionState().PeerCertificates
		require.Len(t, chain, 3, "iPXE needs the root to be sent")
		require.NoError(t, c.Close())
	}
}

// TestBootsGoOnWithAFullDisk fills the disk while bootd runs: nothing more can
// be written down, and a machine boots all the same.
func TestBootsGoOnWithAFullDisk(t *testing.T) {
	d := newDaemon(t, "", "")
	state := filepath.Join(d.dir, "state")
	mountTmpfs(t, state, "size=400m")
	d.start()
	var fs syscall.Statfs_t
	require.NoError(t, syscall.Statfs(state, &fs))
	free := int64(fs.Bavail) * fs.Bsize
	require.NoError(t, os.WriteFile(filepath.Join(state, "ballast"), make([]byte, free-(32<<20)), 0o600)) // below the reserve of 64 MiB

	ipxe, machine := d.client(true), d.client(false)
	get := func(c *http.Client, method, url, token string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
		require.NoError(t, err)
		req.Header.Set("Authorization", token)
		res, err := c.Do(req)
		require.NoError(t, err)
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, res.StatusCode, "%s %s: %s", method, url, body)
		return string(body)
	}
	ask := func(digit string) string { // for the script of one of ten machines
		return get(ipxe, http.MethodGet, "https://ipxe.test/ipxe/boot?uuid=4c4c4544-0042-3510-8052-b4c04f56443"+digit+
			"&mac=52-54-00-00-00-0"+digit+"&serial=&arch=x86_64&platform=efi&ip=", "")
	}
	require.Eventually(t, func() bool { // the free space is looked at once a second
		ask("1")
		return strings.Contains(d.log.String(), "machines are kept in memory until they can be written down")
	}, 10*time.Second, 50*time.Millisecond)
	script := ask("2")
	require.Contains(t, script, "\nkernel ")
	_, rest, ok := strings.Cut(script, "/ipxe/initrd/")
	require.True(t, ok)
	initrd := get(ipxe, http.MethodGet, "https://ipxe.test/ipxe/initrd/"+rest[:16], "")
	bearer := regexp.MustCompile(`Bearer ([0-9a-f]{16}\.[A-Za-z0-9_-]{43})`)
	config := get(machine, http.MethodGet, "https://boot.test/ipxe/ignition", bearer.FindString(initrd))
	done := regexp.MustCompile(`Bearer%20([0-9a-f]{16}\.[A-Za-z0-9_-]{43})`).FindStringSubmatch(config)
	require.Len(t, done, 2)
	get(machine, http.MethodPost, "https://boot.test/ipxe/done", "Bearer "+done[1])

	require.Contains(t, d.machines(), `"id":0,"uuid":"4c4c4544-0042-3510-8052-b4c04f564432"`, "known, but not written down")

	require.NoError(t, os.Remove(filepath.Join(state, "ballast")))
	require.Eventually(t, func() bool {
		return regexp.MustCompile(`"id":[12],"uuid":"4c4c4544-0042-3510-8052-b4c04f564432"`).MatchString(d.machines())
	}, 10*time.Second, 50*time.Millisecond, "with space again, it is written down")
}

// machines is the admin API's list of machines.
func (d *running) machines() string {
	d.t.Helper()
	var dialer net.Dialer
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", filepath.Join(d.dir, "state/admin.sock"))
	}}}
	ask := func(path string) string {
		req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, "http://bootd/api/v1/orgs"+path, http.NoBody)
		require.NoError(d.t, err)
		res, err := c.Do(req)
		require.NoError(d.t, err)
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		require.NoError(d.t, err)
		require.Equal(d.t, http.StatusOK, res.StatusCode)
		return string(body)
	}
	org := regexp.MustCompile(`"id":"([0-9a-f-]{36})"`).FindStringSubmatch(ask(""))
	require.Len(d.t, org, 2)
	return ask("/" + org[1] + "/machines")
}

// client finds both names at bootd's HTTPS port, with the set's certificate or
// without.
func (d *running) client(certificate bool) *http.Client {
	d.t.Helper()
	cfg := &tls.Config{RootCAs: x509.NewCertPool()}
	pem, err := os.ReadFile(filepath.Join(d.dir, "state/pki/root.pem"))
	require.NoError(d.t, err)
	require.True(d.t, cfg.RootCAs.AppendCertsFromPEM(pem))
	if certificate {
		path := filepath.Join(d.dir, "state/sets/rack1/client.pem")
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

// mountTmpfs gives path a small disk of its own for the length of the test.
func mountTmpfs(t *testing.T, path, size string) {
	t.Helper()
	require.NoError(t, os.Mkdir(path, 0o700))
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, size+",mode=0700"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("a small disk is made by mounting a tmpfs, which needs root: ", err)
		}
		t.Skip("mounting a tmpfs needs root: ", err)
	}
	// Detached, because a store whose engine has died keeps its files open.
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(path, syscall.MNT_DETACH)) })
}

func TestDevConfig(t *testing.T) {
	cfg, cleanup, err := devConfig(Config{Domain: "test"}.withDefaults("/"))
	require.NoError(t, err)
	require.NoError(t, cfg.Validate())
	require.DirExists(t, cfg.StateDir)
	for _, addr := range []string{cfg.Listen.TFTP, cfg.Listen.HTTP, cfg.Listen.HTTPS, cfg.Listen.Metrics} {
		_, port, err := net.SplitHostPort(addr)
		require.NoError(t, err)
		require.Greater(t, len(port), 3, "a port that any user may have")
	}
	cleanup()
	require.NoDirExists(t, cfg.StateDir)
}
