package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestStartServeStopStart(t *testing.T) {
	d := newDaemon(t, "")
	d.start()
	require.Contains(t, d.log.String(), "there is no artifact set yet; make the first one: nestctl artifact create rack1")
	_, err := d.tftp("rack1.efi")
	require.ErrorContains(t, err, "file not found")
	d.create(`{"name":"rack1","exposure":["https","tftp"]}`)

	efi, err := d.tftp("rack1/snponly.efi")
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(efi, []byte("MZ")))
	script, err := d.tftp("rack1.ipxe")
	require.NoError(t, err)
	require.True(t, bytes.Contains(script, []byte("set privkey:hexraw")))
	status, body := d.get("http://" + d.ports.http + "/rack1.ipxe")
	require.Equal(t, http.StatusForbidden, status, "exposed over TFTP is not exposed over HTTP")
	require.Contains(t, body, "nestctl artifact update rack1 --serve http\n")

	for path, want := range map[string]string{
		"/healthz": "ok", "/readyz": "ok", "/debug/pprof/cmdline": "",
		"/metrics": `nestboot_boot_stage_total{code="",stage="tftp-done"} 2`,
	} {
		require.EventuallyWithT(t, func(c *assert.CollectT) { // the last ACK comes after the file
			status, body := d.get("http://" + d.ports.metrics + path)
			assert.Equal(c, http.StatusOK, status, path)
			assert.Contains(c, body, want)
		}, 10*time.Second, 20*time.Millisecond)
	}
	d.stop()
	d.start()
	require.Contains(t, d.log.String(), "anybody on the provisioning network can read this set's private key over TFTP")
	again, err := d.tftp("rack1.ipxe")
	require.NoError(t, err)
	require.Equal(t, script, again, "a restart changes no artifact")
}

func TestT33_MetricsAreOnLoopbackOnly(t *testing.T) {
	d := newDaemon(t, "")
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
	d := newDaemon(t, "")
	d.start()
	hup := func() { require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP)) }
	d.write("m.bu", "variant: flatcar\nversion: 1.0.0\nnonsense: 1\n")
	hup()
	d.waitLog("configuration was not reloaded")
	require.Contains(t, d.log.String(), "m.bu")
	status, _ := d.get("http://" + d.ports.metrics + "/readyz")
	require.Equal(t, http.StatusOK, status, "what ran goes on")
	d.write("m.bu", "variant: flatcar\nversion: 1.0.0\n")
	d.edit("state_dir: state", "state_dir: state2")
	hup()
	d.waitLog("configuration was reloaded")
	d.waitLog("settings=\"[state_dir listen]\"")
}

func TestReloadBringsTheFirstImage(t *testing.T) {
	d := newDaemon(t, "")
	text, err := os.ReadFile(d.config)
	require.NoError(t, err)
	without, _, found := strings.Cut(string(text), "images:")
	require.True(t, found)
	d.write("bootd.yaml", without)
	d.start()
	d.create(`{"name":"rack1"}`)
	ask := func() string {
		_, body := d.ask(d.client("rack1-1"), http.MethodGet, bootURL("1"))
		return body
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
	d := newDaemon(t, "")
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
		"no iPXE":        {func(t *testing.T, d *running) { d.edit("[ipxe]", "[gone]") }, []string{"artifacts.bases: open ", "gone: no such file or directory: name a .deb file or a folder"}},
		"foreign iPXE": {func(t *testing.T, d *running) {
			data, err := os.ReadFile(filepath.Join(d.dir, "ipxe/snponly.efi"))
			require.NoError(t, err)
			d.write("ipxe/snponly.efi", string(append(data, data...))) // two fingerprints
		}, []string{"artifacts.bases: ", "2 times instead of once"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t, "")
			tt.prepare(t, d)
			err := d.refused()
			for _, want := range tt.want {
				require.Contains(t, err, want)
			}
			require.NoDirExists(t, filepath.Join(d.dir, "state"), "a start that was refused leaves nothing behind")
		})
	}
}

func TestT30_StateOfOthersIsRefused(t *testing.T) {
	d := newDaemon(t, "")
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
	d := newDaemon(t, "")
	state := filepath.Join(d.dir, "state")
	mountTmpfs(t, state, "size=1m")
	require.Contains(t, d.refused(), "make room there")
}

func TestAnotherBootdIsNotDisturbed(t *testing.T) {
	d := newDaemon(t, "")
	d.start()
	second := newDaemon(t, "")
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
	d := newDaemon(t, "addresses: [127.0.0.1]\n")
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
	d := newDaemon(t, "")
	state := filepath.Join(d.dir, "state")
	mountTmpfs(t, state, "size=400m")
	d.start()
	d.create(`{"name":"rack1"}`)
	var fs syscall.Statfs_t
	require.NoError(t, syscall.Statfs(state, &fs))
	free := int64(fs.Bavail) * fs.Bsize
	require.NoError(t, os.WriteFile(filepath.Join(state, "ballast"), make([]byte, free-(32<<20)), 0o600)) // below the reserve of 64 MiB

	ipxe, machine := d.client("rack1-1"), d.client("")
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
		return get(ipxe, http.MethodGet, bootURL(digit), "")
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

	var full struct{ Code string }
	d.admin(http.MethodPost, "/ipxe_boot_artifacts", `{"name":"rack2"}`, http.StatusInsufficientStorage, &full)
	require.Equal(t, "no_space", full.Code)

	require.NoError(t, os.Remove(filepath.Join(state, "ballast")))
	require.Eventually(t, func() bool {
		return regexp.MustCompile(`"id":[12],"uuid":"4c4c4544-0042-3510-8052-b4c04f564432"`).MatchString(d.machines())
	}, 10*time.Second, 50*time.Millisecond, "with space again, it is written down")
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
