// Package mirror is a download server of an operating system's maker for tests:
// HTTPS on loopback, files laid out like the real ones, signed by keys that are
// made for the test.
package mirror

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Mirror serves files by path.
type Mirror struct {
	URL    string // https://127.0.0.1:port
	CAFile string // what a client must trust

	mu       sync.Mutex
	files    map[string][]byte
	requests []string // "path range"
	before   func(w http.ResponseWriter, req *http.Request) (done bool)
}

// New starts an empty mirror, which ends with the test.
func New(t *testing.T) *Mirror {
	t.Helper()
	m := &Mirror{files: map[string][]byte{}}
	srv := httptest.NewTLSServer(m)
	t.Cleanup(srv.Close)
	m.URL, m.CAFile = srv.URL, filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	require.NoError(t, os.WriteFile(m.CAFile, ca, 0o600))
	return m
}

// Put puts a file at a path.
func (m *Mirror) Put(path string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[path] = data
}

// Before is asked before each answer, and may give another one. Nil ends that.
func (m *Mirror) Before(f func(w http.ResponseWriter, req *http.Request) (done bool)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before = f
}

// Requests are what was asked for until now: path, and the range if there was
// one.
func (m *Mirror) Requests() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string{}, m.requests...)
}

// ServeHTTP answers with strong validators and ranges, as file servers do.
func (m *Mirror) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	path := strings.TrimPrefix(req.URL.Path, "/")
	m.mu.Lock()
	data, ok := m.files[path]
	before := m.before
	m.requests = append(m.requests, strings.TrimSpace(path+" "+req.Header.Get("Range")))
	m.mu.Unlock()
	if before != nil && before(w, req) {
		return
	}
	if !ok {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(data)))
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(data))
}

// WriteTo writes the files into a folder, as an operator would carry them.
func (m *Mirror) WriteTo(t *testing.T, dir string) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for path, data := range m.files {
		to := filepath.Join(dir, filepath.FromSlash(path))
		require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o700))
		require.NoError(t, os.WriteFile(to, data, 0o600))
	}
}

// Flatcar lays out a release as Flatcar does: kernel, initrd, a signature beside
// each, version.txt below current, and the keys at the top.
func (m *Mirror) Flatcar(maker *Maker, version string, kernel, initrd []byte, at time.Time) {
	dir := "amd64-usr/" + version + "/"
	for name, data := range map[string][]byte{"flatcar_production_pxe.vmlinuz": kernel, "flatcar_production_pxe_image.cpio.gz": initrd} {
		m.Put(dir+name, data)
		m.Put(dir+name+".sig", maker.Sign(data, at))
	}
	m.Put("amd64-usr/current/version.txt", []byte("FLATCAR_BUILD=1\nFLATCAR_VERSION="+version+"\nFLATCAR_VERSION_ID="+version+"\n"))
	m.Put("keys.asc", maker.Keys())
}

// FlatcarSystem describes that layout, with the maker's key pinned.
func FlatcarSystem(maker *Maker) string {
	return `name: flatcar
channels: [stable, beta]
archs: {x86_64: amd64, arm64: arm64}
current: {file: "{arch}-usr/current/version.txt", pattern: '(?m)^FLATCAR_VERSION=(\S+)$'}
kernel: "{arch}-usr/{version}/flatcar_production_pxe.vmlinuz"
initrds: ["{arch}-usr/{version}/flatcar_production_pxe_image.cpio.gz"]
args: [flatcar.first_boot=1]
signature: {kind: openpgp-detached, keys: keys.asc, fingerprints: [` + maker.Fingerprint() + `]}
`
}

// Debian lays out an installer as Debian's archive does: Release is signed, and
// names the list with the digests of the files.
func (m *Mirror) Debian(maker *Maker, version string, kernel, initrd []byte, at time.Time) {
	images := "dists/trixie/main/installer-amd64/" + version + "/images/"
	netboot := "netboot/debian-installer/amd64/"
	m.Put(images+netboot+"linux", kernel)
	m.Put(images+netboot+"initrd.gz", initrd)
	sums := fmt.Sprintf("%s  ./%slinux\n%s  ./%sinitrd.gz\n", sum(kernel), netboot, sum(initrd), netboot)
	m.Put(images+"SHA256SUMS", []byte(sums))
	release := fmt.Sprintf("Suite: stable\nCodename: trixie\nSHA256:\n %s %d main/installer-amd64/%s/images/SHA256SUMS\n", sum([]byte(sums)), len(sums), version)
	m.Put("dists/trixie/Release", []byte(release))
	m.Put("dists/trixie/Release.gpg", maker.Sign([]byte(release), at))
	m.Put("debian-archive-keyring.gpg", maker.Keys())
}

// DebianSystem describes that layout, with the maker's key pinned.
func DebianSystem(maker *Maker) string {
	return `name: debian-installer
channels: [bookworm, trixie]
archs: {x86_64: amd64}
current: {file: "dists/{channel}/Release", pattern: 'main/installer-{arch}/(\d{8}[^/\s]*)/images/SHA256SUMS'}
kernel: "dists/{channel}/main/installer-{arch}/{version}/images/netboot/debian-installer/{arch}/linux"
initrds: ["dists/{channel}/main/installer-{arch}/{version}/images/netboot/debian-installer/{arch}/initrd.gz"]
signature:
  kind: openpgp-digests
  lists:
    - {file: "dists/{channel}/Release", signature: "dists/{channel}/Release.gpg", must_match: "Codename: {channel}"}
    - {file: "dists/{channel}/main/installer-{arch}/{version}/images/SHA256SUMS"}
  keys: debian-archive-keyring.gpg
  fingerprints: [` + maker.Fingerprint() + `]
`
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}
