package trusted

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

// start is when the tests' clocks begin.
var start = time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)

// world is what entries live in: a real store, and authorities of others.
type world struct {
	t     testing.TB
	dir   string
	store *store.Store
	log   bytes.Buffer

	mu  sync.Mutex
	now time.Time
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), now: start}
	w.store = openStore(t, filepath.Join(w.dir, "store"))
	return w
}

func openStore(t testing.TB, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), store.Config{Dir: dir, Reserve: 1})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) add(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// Write takes the log down.
func (w *world) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(line)
}

func (w *world) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

func (w *world) config() Config {
	return Config{Store: w.store, Dir: filepath.Join(w.dir, "crl"), Log: slog.New(slog.NewTextHandler(w, nil)), Now: w.clock}
}

// open starts it, also again.
func (w *world) open() *Trusted {
	w.t.Helper()
	t, err := Open(w.t.Context(), w.config())
	require.NoError(w.t, err)
	return t
}

// poll does what Run does at each turn, and waits for it.
func (t *Trusted) poll(ctx context.Context) {
	var reading sync.WaitGroup
	t.readFiles(ctx, &reading)
	reading.Wait()
	t.tellStale(ctx)
}

// file writes a file as others do: by renaming.
func (w *world) file(name string, data []byte) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	require.NoError(w.t, os.WriteFile(path+".new", data, 0o600))
	require.NoError(w.t, os.Rename(path+".new", path))
	return path
}

// ca is an authority with its key.
type ca struct {
	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

// rsaKey is one for all tests.
var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func nothing(*x509.Certificate) {}

// newCA makes a root that lives for ten years.
func newCA(t testing.TB, name string, change func(*x509.Certificate)) ca {
	return ca{t: t}.sub(name, change)
}

// sub makes an authority below c, or a root if c has no key.
func (c ca) sub(name string, change func(*x509.Certificate)) ca {
	return c.subWith(newKey(c.t), name, change)
}

func (c ca) subWith(key crypto.Signer, name string, change func(*x509.Certificate)) ca {
	c.t.Helper()
	tpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		NotBefore: start.Add(-24 * time.Hour), NotAfter: start.Add(10 * 365 * 24 * time.Hour),
	}
	change(tpl)
	return ca{c.t, c.sign(tpl, key), key}
}

// issue makes the certificate of a machine that lives for a year.
func (c ca) issue(name string, change func(*x509.Certificate)) *x509.Certificate {
	return c.issueWith(newKey(c.t), name, change)
}

func (c ca) issueWith(key crypto.Signer, name string, change func(*x509.Certificate)) *x509.Certificate {
	c.t.Helper()
	tpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore: start.Add(-24 * time.Hour), NotAfter: start.Add(365 * 24 * time.Hour),
	}
	change(tpl)
	return c.sign(tpl, key)
}

func (c ca) sign(tpl *x509.Certificate, key crypto.Signer) *x509.Certificate {
	c.t.Helper()
	if tpl.SerialNumber == nil {
		serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
		require.NoError(c.t, err)
		tpl.SerialNumber = serial
	}
	by := c
	if by.key == nil {
		by = ca{c.t, tpl, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, by.cert, key.Public(), by.key)
	require.NoError(c.t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(c.t, err)
	return cert
}

// crl makes a revocation list of the given time, good for a week.
func (c ca) crl(this time.Time, revoked ...*x509.Certificate) []byte {
	c.t.Helper()
	return c.crlWith(func(tpl *x509.RevocationList) {
		tpl.ThisUpdate, tpl.NextUpdate = this, this.Add(7*24*time.Hour)
		for _, cert := range revoked {
			tpl.RevokedCertificateEntries = append(tpl.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: cert.SerialNumber, RevocationTime: this})
		}
	})
}

func (c ca) crlWith(change func(*x509.RevocationList)) []byte {
	c.t.Helper()
	tpl := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: start, NextUpdate: start.Add(7 * 24 * time.Hour)}
	change(tpl)
	der, err := x509.CreateRevocationList(rand.Reader, tpl, c.cert, c.key)
	require.NoError(c.t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// text is certificates in PEM form.
func text(certs ...*x509.Certificate) string {
	var b strings.Builder
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.String()
}

func chain(certs ...*x509.Certificate) []*x509.Certificate { return certs }

func mustAdd(t testing.TB, tr *Trusted, spec Spec) Entry {
	t.Helper()
	e, err := tr.Add(context.Background(), spec)
	require.NoError(t, err)
	return e
}

func caSpec(name string, certs ...*x509.Certificate) Spec {
	return Spec{Name: name, Kind: pki.KindCA, PEM: text(certs...)}
}

func pinSpec(name, match string, cert *x509.Certificate) Spec {
	return Spec{Name: name, Kind: pki.KindPin, PEM: text(cert), Match: match}
}

func refusal(t testing.TB, err error) *pki.Refusal {
	t.Helper()
	var r *pki.Refusal
	require.True(t, errors.As(err, &r), "not a refusal: %v", err)
	return r
}

// codeOf is the code of a refusal, empty for none.
func codeOf(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	r := refusal(t, err)
	require.NotEmpty(t, r.Reason)
	return r.Code
}

// rang reports whether Changed has fired since the channel was taken.
func rang(changed <-chan struct{}) bool {
	select {
	case <-changed:
		return true
	default:
		return false
	}
}

// newSerial is a serial number of 16 bytes.
func newSerial(i int) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(0x7a), 120)
	return n.Add(n, big.NewInt(int64(i)))
}
