package artifact

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/ipxebuild"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

type world struct {
	ca  *pki.Authority
	cfg Config
	log *bytes.Buffer
	now time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "store")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	w := &world{log: &bytes.Buffer{}, now: time.Now()}
	w.ca, err = pki.Open(t.Context(), pki.Config{Dir: filepath.Join(dir, "pki"), Store: s, Hosts: []string{"ipxe.test"}})
	require.NoError(t, err)
	w.cfg = Config{
		Name: "rack1", Dir: filepath.Join(dir, "sets", "rack1"), URL: "https://ipxe.test",
		Log: slog.New(slog.NewTextHandler(w.log, nil)), Now: func() time.Time { return w.now },
	}
	return w
}

func (w *world) open(t *testing.T) *Set {
	t.Helper()
	bases, err := ReadBases(lab.Need(t).IPXEDir())
	require.NoError(t, err)
	s, err := Open(t.Context(), w.cfg, bases, w.ca)
	require.NoError(t, err)
	return s
}

func TestSet(t *testing.T) {
	w := newWorld(t)
	s := w.open(t)
	root := w.ca.RootFingerprint()
	for name, key := range map[string]bool{"rack1/snponly.efi": false, "rack1/ipxe-amd64.efi": false, "rack1/autoexec.ipxe": true, "autoexec.ipxe": true} {
		f, ok := s.File(name)
		require.True(t, ok, name)
		require.Equal(t, key, f.HoldsKey, name)
		require.Equal(t, !key, bytes.Contains(f.Data, root[:]), "binaries trust our root")
		onDisk := filepath.Join(w.cfg.Dir, filepath.Base(name))
		data, err := os.ReadFile(onDisk)
		require.NoError(t, err)
		require.Equal(t, f.Data, data)
		st, err := os.Stat(onDisk)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), st.Mode().Perm(), "T30: keys are nobody else's to read")
	}
	for _, name := range []string{"", "rack1", "rack1/", "snponly.efi", "rack1/client.pem", "rack1/../rack1/snponly.efi", "rack2/autoexec.ipxe"} {
		_, ok := s.File(name)
		require.False(t, ok, name)
	}
	require.NotContains(t, w.log.String(), "PRIVATE KEY")
}

func TestCredentialIsKeptAndRenewed(t *testing.T) {
	w := newWorld(t)
	script := func() string {
		f, ok := w.open(t).File("autoexec.ipxe")
		require.True(t, ok)
		return string(f.Data)
	}
	first := script()
	require.Equal(t, first, script(), "a restart changes nothing")

	path := filepath.Join(w.cfg.Dir, "client.pem")
	pair, err := tls.LoadX509KeyPair(path, path)
	require.NoError(t, err)
	id, err := w.ca.Verify([]*x509.Certificate{pair.Leaf}, time.Now())
	require.NoError(t, err)
	require.Equal(t, "rack1", id.Set)

	running := w.open(t)
	running1, _ := running.File("autoexec.ipxe")
	require.NoError(t, running.renewIfDue(t.Context()))
	running2, _ := running.File("autoexec.ipxe")
	require.Equal(t, running1.SHA256, running2.SHA256, "not due yet")
	w.now = pair.Leaf.NotAfter.Add(-renewBefore + time.Hour)
	require.NoError(t, running.renewIfDue(t.Context()))
	running2, _ = running.File("autoexec.ipxe")
	require.NotEqual(t, running1.SHA256, running2.SHA256, "a certificate near its end is replaced without a restart")
	second := script()
	require.NotEqual(t, first, second)
	require.Contains(t, w.log.String(), "set gets a new certificate")

	w.now = time.Now()
	require.NoError(t, os.WriteFile(path, []byte("damaged"), 0o600))
	require.NotEqual(t, second, script(), "a damaged one too")
}

func TestReadBasesNamesEachFault(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "snponly.efi"), []byte("not iPXE"), 0o600))
	_, err := ReadBases(dir)
	require.ErrorContains(t, err, "snponly.efi is not a UEFI program")
	require.ErrorContains(t, err, filepath.Join(dir, "ipxe-amd64.efi")+" does not exist: install Debian's package ipxe")
}

func TestOpenRefusesNames(t *testing.T) {
	w := newWorld(t)
	w.cfg.Name = "../rack1"
	_, err := Open(t.Context(), w.cfg, []ipxebuild.Base{}, w.ca)
	require.ErrorContains(t, err, "set name")
	require.NoDirExists(t, w.cfg.Dir, "nothing is left behind")
}

func TestT30_FolderOfASetIsNobodyElses(t *testing.T) {
	w := newWorld(t)
	elsewhere := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Dir(w.cfg.Dir), 0o700))
	require.NoError(t, os.Symlink(elsewhere, w.cfg.Dir))
	_, err := Open(t.Context(), w.cfg, nil, w.ca)
	require.ErrorContains(t, err, "chmod 0700")
	require.NoError(t, os.Remove(w.cfg.Dir))
	require.NoError(t, os.Mkdir(w.cfg.Dir, 0o700))
	require.NoError(t, os.Chmod(w.cfg.Dir, 0o755))
	_, err = Open(t.Context(), w.cfg, nil, w.ca)
	require.ErrorContains(t, err, "open to others")
}
