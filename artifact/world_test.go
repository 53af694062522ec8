package artifact

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/ipxebuild"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

// world is an installation: a real store, a real authority and real binaries.
type world struct {
	t     *testing.T
	dir   string
	store *store.Store
	ca    *pki.Authority
	stock *ipxebuild.Stock
	log   *logbook
	skew  time.Duration // of the clock
}

// logbook is a log that may be read while it is written.
type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// shared is what is the same for all tests, because it takes its time: the
// files of an authority, and the binaries, whose trust is patched once per
// authority.
type shared struct {
	pki   fstest.MapFS
	stock *ipxebuild.Stock
}

var firstStart = sync.OnceValues(func() (shared, error) {
	dir, err := os.MkdirTemp("", "artifact")
	if err != nil {
		return shared{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	m, err := lab.FindMaterials()
	if err != nil {
		return shared{}, err
	}
	bundles, err := ReadBases([]string{m.IPXEDir()})
	if err != nil {
		return shared{}, err
	}
	stock, err := OpenBases(context.Background(), bundles, filepath.Join(dir, "bases"), slog.New(slog.DiscardHandler))
	if err != nil {
		return shared{}, err
	}
	s, err := store.Open(context.Background(), store.Config{Dir: filepath.Join(dir, "store")})
	if err != nil {
		return shared{}, err
	}
	defer func() { _ = s.Close() }()
	if _, err := pki.Open(context.Background(), pki.Config{Dir: filepath.Join(dir, "pki"), Store: s, Hosts: []string{"ipxe.test"}}); err != nil {
		return shared{}, err
	}
	files := fstest.MapFS{}
	paths, err := filepath.Glob(filepath.Join(dir, "pki", "*"))
	for _, path := range paths {
		data, readErr := os.ReadFile(path)
		err = errors.Join(err, readErr)
		files[filepath.Base(path)] = &fstest.MapFile{Data: data, Mode: 0o600}
	}
	return shared{pki: files, stock: stock}, err
})

func newWorld(t *testing.T) *world {
	t.Helper()
	lab.Need(t)
	made, err := firstStart()
	require.NoError(t, err)
	w := &world{t: t, dir: t.TempDir(), log: &logbook{}, stock: made.stock}
	require.NoError(t, os.CopyFS(filepath.Join(w.dir, "pki"), made.pki))
	require.NoError(t, os.Chmod(filepath.Join(w.dir, "pki"), 0o700))
	for name := range made.pki {
		require.NoError(t, os.Chmod(filepath.Join(w.dir, "pki", name), 0o600))
	}
	w.store, err = store.Open(t.Context(), store.Config{Dir: filepath.Join(w.dir, "store")})
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.store.Close() }) // some tests close it themselves
	w.ca, err = pki.Open(t.Context(), pki.Config{Dir: filepath.Join(w.dir, "pki"), Store: w.store, Hosts: []string{"ipxe.test"}, Now: w.now})
	require.NoError(t, err)
	return w
}

func (w *world) logger() *slog.Logger { return slog.New(slog.NewTextHandler(w.log, nil)) }
func (w *world) now() time.Time       { return time.Now().Add(w.skew) }

func (w *world) openBases(paths ...string) *ipxebuild.Stock {
	w.t.Helper()
	bundles, err := ReadBases(paths)
	require.NoError(w.t, err)
	stock, err := OpenBases(w.t.Context(), bundles, filepath.Join(w.dir, "bases"), w.logger())
	require.NoError(w.t, err)
	return stock
}

// open starts bootd's part of it, also again.
func (w *world) open() *Sets {
	w.t.Helper()
	s, err := Open(w.t.Context(), Config{
		Dir: filepath.Join(w.dir, "sets"), URL: "https://ipxe.test", Store: w.store, Authority: w.ca, Stock: w.stock, Log: w.logger(), Now: w.now,
	})
	require.NoError(w.t, err)
	return s
}

func (w *world) create(s *Sets, spec Spec) Info {
	w.t.Helper()
	i, err := s.Create(w.t.Context(), spec)
	require.NoError(w.t, err)
	return i
}

// credentialOf reads a set's certificate and key as they lie on disk.
func (w *world) credentialOf(i Info) (cert *x509.Certificate, key []byte) {
	w.t.Helper()
	path := filepath.Join(w.dir, "sets", record{ID: i.ID, Spec: i.Spec}.dir(), credentialFile)
	pair, err := tls.LoadX509KeyPair(path, path)
	require.NoError(w.t, err)
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	require.NoError(w.t, err)
	return pair.Leaf, der[max(0, len(der)-1000):] // the PKCS #1 form ends alike
}

// verify is what happens to a machine that shows the certificate.
func (w *world) verify(cert *x509.Certificate) error {
	_, err := w.ca.Verify([]*x509.Certificate{cert}, w.now())
	return err
}

// refused demands that the certificate is refused with the code.
func (w *world) refused(cert *x509.Certificate, code string) {
	w.t.Helper()
	var r *pki.Refusal
	require.ErrorAs(w.t, w.verify(cert), &r)
	require.Equal(w.t, code, r.Code)
}

// everything is all that the set's files hold, by name.
func (w *world) everything(s *Sets, i Info) map[string]File {
	w.t.Helper()
	all := map[string]File{}
	for _, f := range i.Files {
		data, err := s.Render(w.t.Context(), i.ID, f.Name)
		require.NoError(w.t, err, f.Name)
		all[f.Name] = data
	}
	require.NotEmpty(w.t, all)
	return all
}

// holdsKey finds a private key as DER, in PEM, and in hexadecimal as iPXE's
// scripts have it: in ASCII, or in UTF-16 where UEFI hands the script over.
func holdsKey(data, key []byte) bool {
	half := key[len(key)/2:]
	for _, form := range [][]byte{half, []byte(hex.EncodeToString(half)), utf16(hex.EncodeToString(half)), []byte("PRIVATE KEY"), utf16("PRIVATE KEY")} {
		if bytes.Contains(data, form) || bytes.Contains(data, bytes.ToUpper(form)) {
			return true
		}
	}
	return false
}

// utf16 is ASCII text in UTF-16, little end first.
func utf16(s string) []byte {
	var b []byte
	for _, c := range []byte(s) {
		b = append(b, c, 0)
	}
	return b
}

// TestT14_FilesSayWhetherTheyHoldTheKey has the search find the key in every
// file that is said to hold it, or a walk that finds nothing would prove nothing.
func TestT14_FilesSayWhetherTheyHoldTheKey(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	i := w.create(s, Spec{Name: "rack1"})
	_, key := w.credentialOf(i)
	all := w.everything(s, i)
	for _, f := range i.Files {
		require.Equal(t, f.HoldsKey, holdsKey(all[f.Name].Data, key), f.Name)
		report, err := ipxebuild.Inspect(f.Name, all[f.Name].Data)
		require.True(t, err != nil || report.HoldsKey == f.HoldsKey, "inspect tells the same of %s", f.Name)
	}
	require.True(t, holdsKey(utf16(hex.EncodeToString(key)), key))
}

// storeHolds looks for text in all that the store holds.
func (w *world) storeHolds(text []byte) bool {
	w.t.Helper()
	entries, err := w.store.List(w.t.Context(), "")
	require.NoError(w.t, err)
	for _, e := range entries {
		if bytes.Contains(e.Value, text) {
			return true
		}
	}
	return false
}

// folders are the sets' folders on disk.
func (w *world) folders() []string {
	w.t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.dir, "sets"))
	require.NoError(w.t, err)
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// private demands that nothing below the sets' folder is for others.
func (w *world) private() {
	w.t.Helper()
	require.NoError(w.t, filepath.WalkDir(filepath.Join(w.dir, "sets"), func(path string, _ fs.DirEntry, err error) error {
		require.NoError(w.t, err)
		st, err := os.Lstat(path)
		require.NoError(w.t, err)
		require.Zero(w.t, st.Mode().Perm()&0o077, path)
		return nil
	}))
}

// run does what Run would have done by its end.
func run(t *testing.T, s *Sets) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Run(ctx)
}
