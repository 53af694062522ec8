package serving

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

// keyOf makes one key per kind and number: RSA keys take their time.
var keyOf = func() func(t *testing.T, kind string, n int) crypto.Signer {
	var mu sync.Mutex
	made := map[string]crypto.Signer{}
	return func(t *testing.T, kind string, n int) crypto.Signer {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		id := kind + string(rune('0'+n))
		if made[id] == nil {
			key, err := map[string]func() (crypto.Signer, error){
				"rsa":      func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) },
				"rsa-1024": func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 1024) },
				"p256":     func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
				"p384":     func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) },
				"p521":     func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P521(), rand.Reader) },
				"ed25519":  func() (crypto.Signer, error) { _, k, err := ed25519.GenerateKey(rand.Reader); return k, err },
			}[kind]()
			require.NoError(t, err)
			made[id] = key
		}
		return made[id]
	}
}()

// customer is an authority of a customer: a root, an intermediate, and what they
// sign.
type customer struct {
	t            *testing.T
	now          time.Time
	kind         string
	root, middle *x509.Certificate
	rootKey, key crypto.Signer
}

func newCustomer(t *testing.T, name, kind string) *customer {
	t.Helper()
	c := &customer{t: t, now: time.Now(), kind: kind, rootKey: keyOf(t, kind, 0), key: keyOf(t, kind, 1)}
	c.root = c.sign(c.authority(name+" root"), nil, nil, c.rootKey, c.rootKey)
	c.middle = c.sign(c.authority(name+" issuer"), nil, c.root, c.key, c.rootKey)
	return c
}

func (c *customer) authority(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: c.now.Add(-48 * time.Hour), NotAfter: c.now.Add(5 * 365 * 24 * time.Hour),
	}
}

// sign makes a certificate for key; with no parent it is self-signed.
func (c *customer) sign(template *x509.Certificate, edit func(*x509.Certificate), parent *x509.Certificate, key, by crypto.Signer) *x509.Certificate {
	c.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(c.t, err)
	template.SerialNumber = serial
	if edit != nil {
		edit(template)
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	require.NoError(c.t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(c.t, err)
	return cert
}

// leaf makes a server certificate for key.
func (c *customer) leaf(key crypto.Signer, edit func(*x509.Certificate), names ...string) *x509.Certificate {
	return c.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "server"}, DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore:   c.now.Add(-48 * time.Hour), NotAfter: c.now.Add(90 * 24 * time.Hour),
	}, edit, c.middle, key, c.key)
}

// issue makes a whole chain with its key.
func (c *customer) issue(kind string, edit func(*x509.Certificate), names ...string) given {
	key := keyOf(c.t, kind, 2)
	return given{key: key, chain: []*x509.Certificate{c.leaf(key, edit, names...), c.middle, c.root}}
}

// given is a chain and a key to put into files.
type given struct {
	key   crypto.Signer
	chain []*x509.Certificate
}

func (g given) certificatePEM() []byte {
	var text bytes.Buffer
	for _, c := range g.chain {
		_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return text.Bytes()
}

func (g given) keyPEM(t *testing.T) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(g.key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// write puts a chain and a key into files.
func (g given) write(t *testing.T, f File) File {
	t.Helper()
	require.NoError(t, os.WriteFile(f.Certificate, g.certificatePEM(), 0o644))
	require.NoError(t, os.WriteFile(f.Key, g.keyPEM(t), 0o600))
	return f
}

func files(t *testing.T) File {
	t.Helper()
	dir := t.TempDir()
	return File{Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
}

// world is an installation with a real authority.
type world struct {
	t   *testing.T
	ca  *pki.Authority
	log *logbook
	now time.Time
}

type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logbook) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

func newWorld(t *testing.T, edit ...func(*pki.Config)) *world {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "store")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	w := &world{t: t, log: &logbook{}, now: time.Now()}
	cfg := pki.Config{Dir: filepath.Join(dir, "pki"), Store: s, Hosts: []string{"boot.example.net", "ipxe.example.net"}}
	for _, f := range edit {
		f(&cfg)
	}
	w.ca, err = pki.Open(t.Context(), cfg)
	require.NoError(t, err)
	return w
}

func (w *world) config(files ...File) Config {
	return Config{
		Authority: w.ca, Files: files, Domain: "example.net",
		Log: slog.New(slog.NewTextHandler(w.log, nil)), Now: func() time.Time { return w.now },
	}
}

func (w *world) open(files ...File) *Certificates {
	w.t.Helper()
	c, err := Open(w.t.Context(), w.config(files...))
	require.NoError(w.t, err)
	return c
}

func (w *world) refused(files ...File) string {
	w.t.Helper()
	_, err := Open(w.t.Context(), w.config(files...))
	require.Error(w.t, err)
	return err.Error()
}

// client is what connects to a host name.
type client struct {
	config *tls.Config
}

// modern is Go's own client, which offers everything.
func modern(root *x509.Certificate) client {
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return client{&tls.Config{RootCAs: pool}}
}

// ipxe offers what iPXE 1.21.1 does: TLS 1.2 without ECDSA.
func ipxe(root *x509.Certificate) client {
	c := modern(root)
	c.config.MaxVersion = tls.VersionTLS12
	c.config.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}
	return c
}

// connect makes a real handshake and returns what the server sent.
func (cl client) connect(t *testing.T, c *Certificates, host string) ([]*x509.Certificate, error) {
	t.Helper()
	near, far := net.Pipe()
	defer func() { _, _ = near.Close(), far.Close() }()
	server := tls.Server(far, &tls.Config{GetCertificate: c.For(host), MinVersion: tls.VersionTLS12})
	go func() { _ = server.HandshakeContext(context.Background()) }()
	config := cl.config.Clone()
	config.ServerName = host
	conn := tls.Client(near, config)
	if err := conn.HandshakeContext(t.Context()); err != nil {
		return nil, err
	}
	return conn.ConnectionState().PeerCertificates, nil
}

// shows demands that a client verifies a host name and is shown a certificate.
func (cl client) shows(t *testing.T, c *Certificates, host string, want *x509.Certificate) {
	t.Helper()
	chain, err := cl.connect(t, c, host)
	require.NoError(t, err, host)
	require.True(t, want.Equal(chain[0]), "%s shows %s of %s", host, chain[0].Subject, chain[0].Issuer)
}
