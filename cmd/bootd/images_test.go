package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/mirror"
)

// hangup reloads bootd and waits until it has.
func (d *running) hangup() {
	d.t.Helper()
	const text = "configuration was reloaded"
	before := strings.Count(d.log.String(), text)
	require.NoError(d.t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	require.Eventually(d.t, func() bool { return strings.Count(d.log.String(), text) > before }, 20*time.Second, 5*time.Millisecond)
}

// TestT28_ReleaseFromMirrorToMachine: an image that names a release waits until
// it is pulled, is served after a reload, and no more once a bit has changed.
func TestT28_ReleaseFromMirrorToMachine(t *testing.T) {
	m, maker := mirror.New(t), mirror.NewMaker(t, time.Now().Add(-time.Hour), 0)
	kernel, initrd := bytes.Repeat([]byte("kernel "), 50_000), bytes.Repeat([]byte("initrd "), 50_000)
	m.Flatcar(maker, "4230.2.0", kernel, initrd, time.Now())
	d := newDaemon(t, fmt.Sprintf("downloads: {ca: %q, mirrors: [%q], systems: [flatcar.yaml]}\n", m.CAFile, m.URL))
	d.write("flatcar.yaml", mirror.FlatcarSystem(maker))
	d.edit("{name: lab, kernel: vmlinuz, initrds: [initrd]}", `{name: lab, release: "flatcar:stable:4230.2.0", args: [quiet]}`)
	d.start()
	d.create(`{"name":"rack1"}`)
	c := d.client("rack1-1")
	script := func() string {
		_, body := d.ask(c, http.MethodGet, bootURL("1"))
		return body
	}
	require.Contains(t, script(), "image lab is not here: nestctl image pull flatcar:stable:4230.2.0 --arch x86_64")
	pull := fmt.Sprintf(`{"release":"flatcar:stable:4230.2.0","mirror":%q}`, m.URL)
	d.admin(http.MethodPost, "/images", pull, http.StatusOK, nil)
	d.hangup()

	require.Contains(t, script(), "flatcar.first_boot=1")
	require.Contains(t, script(), "quiet")
	const url = "https://ipxe.test/ipxe/images/lab/"
	status, body := d.ask(c, http.MethodGet, url+"flatcar_production_pxe.vmlinuz")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, string(kernel), body)
	status, body = d.ask(c, http.MethodGet, url+"0-flatcar_production_pxe_image.cpio.gz")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, string(initrd), body)
	d.admin(http.MethodDelete, "/images/flatcar:stable:4230.2.0:x86_64", "", http.StatusConflict, nil)
	d.admin(http.MethodPost, "/images/collect", `{"keep":0}`, http.StatusOK, nil)

	blobs, err := filepath.Glob(filepath.Join(d.dir, "state/images/blobs/*"))
	require.NoError(t, err)
	require.Len(t, blobs, 2, "what is in use was not collected")
	for _, path := range blobs {
		flip(t, path)
	}
	for _, file := range []string{"flatcar_production_pxe.vmlinuz", "0-flatcar_production_pxe_image.cpio.gz"} {
		status, body = d.ask(c, http.MethodGet, url+file)
		require.GreaterOrEqual(t, status, 400)
		require.NotContains(t, body, "kernel kernel")
		require.NotContains(t, body, "initrd initrd")
	}
	d.stop()
	d.start() // a start neither fails nor serves it
	require.Contains(t, script(), "image lab is not here")
	d.admin(http.MethodPost, "/images", pull, http.StatusOK, nil)
	d.hangup()
	status, body = d.ask(c, http.MethodGet, url+"flatcar_production_pxe.vmlinuz")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, string(kernel), body)
}

// flip changes one bit of a file and nothing that a look at it would show.
func flip(t *testing.T, path string) {
	t.Helper()
	st, err := os.Stat(path)
	require.NoError(t, err)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	data[len(data)-1] ^= 1
	require.NoError(t, os.WriteFile(path, data, 0o600))
	require.NoError(t, os.Chtimes(path, st.ModTime(), st.ModTime()))
}

func TestDownloadsAreChecked(t *testing.T) {
	d := newDaemon(t, "downloads: {proxy: 'http://user:secret@', mirrors: [x], bundle_keys: [ab]}\n")
	why := d.refused()
	require.Contains(t, why, "downloads.mirrors")
	require.Contains(t, why, "downloads.bundle_keys[0]")
	require.NotContains(t, why, "secret")
	d = newDaemon(t, "")
	d.edit("{name: lab, kernel: vmlinuz, initrds: [initrd]}", `{name: lab, release: "flatcar:stable:current"}`)
	require.Contains(t, d.refused(), "name a version")
	d.edit("stable:current", "stable:1.0\", kernel: \"vmlinuz")
	require.Contains(t, d.refused(), "goes without kernel")
	d = newDaemon(t, "downloads: {systems: [bad.yaml]}\n")
	d.write("bad.yaml", "name: bad\nchannels: [a]\narchs: {x86_64: amd64}\nkernel: k\nargs: ['a\"b']\nsignature: {kind: none}\n")
	require.Contains(t, d.refused(), "downloads.systems: bad: args")
	d = newDaemon(t, "downloads: {systems: [gone.yaml]}\n")
	require.Contains(t, d.refused(), "downloads.systems: description")
}
