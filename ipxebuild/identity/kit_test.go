package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const secret = "correct horse"

// kit is a CA, a client of it, and a folder in which openssl turns them into
// files of every kind.
type kit struct {
	t          testing.TB
	dir        string
	root, leaf *x509.Certificate
	key        crypto.Signer
}

func newKit(t testing.TB, key crypto.Signer) kit {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil && os.Getenv("CI") != "true" {
		t.Skip("openssl is not installed")
	}
	k := kit{t: t, dir: t.TempDir(), key: key}
	caKey := ecKey(t, elliptic.P256())
	k.root = k.issue("test root", caKey.Public(), nil, caKey)
	k.leaf = k.issue("test client", key.Public(), k.root, caKey)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	k.write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	k.write("cert.pem", certPEM(k.leaf))
	k.write("root.pem", certPEM(k.root))
	k.write("password", []byte(secret+"\n"))
	return k
}

func ecKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	require.NoError(t, err)
	return key
}

func rsaKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	return key
}

func (k kit) issue(name string, public crypto.PublicKey, parent *x509.Certificate, by crypto.Signer) *x509.Certificate {
	k.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: parent == nil, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	require.NoError(k.t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(k.t, err)
	return cert
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func (k kit) write(name string, data []byte) {
	k.t.Helper()
	require.NoError(k.t, os.WriteFile(filepath.Join(k.dir, name), data, 0o600))
}

func (k kit) source(name string) Source {
	k.t.Helper()
	data, err := os.ReadFile(filepath.Join(k.dir, name))
	require.NoError(k.t, err)
	return Source{Name: name, Data: data}
}

// openssl runs in the kit's folder and reads what its -out wrote.
func (k kit) openssl(args ...string) Source {
	k.t.Helper()
	cmd := exec.CommandContext(k.t.Context(), "openssl", append(args, "-out", "made")...)
	cmd.Dir = k.dir
	out, err := cmd.CombinedOutput()
	require.NoErrorf(k.t, err, "openssl %v: %s", args, out)
	return k.source("made")
}

// asked counts how often a password was asked for, and gives the right one.
type asked []string

func (a *asked) password(name string) ([]byte, error) {
	*a = append(*a, name)
	return []byte(secret), nil
}

func join(parts ...Source) Source {
	var b bytes.Buffer
	for _, p := range parts {
		b.Write(p.Data)
	}
	return Source{Name: "joined", Data: b.Bytes()}
}
