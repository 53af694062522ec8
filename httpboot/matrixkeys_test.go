package httpboot_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// issuer is an authority that is not ours.
type issuer struct {
	t    *testing.T
	cert *x509.Certificate
	key  crypto.Signer
}

// leafLife is how long the credentials of the matrix are good, in both
// directions of time.
const leafLife = 48 * time.Hour

func newIssuer(t *testing.T, name string) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &issuer{t, cert, key}
}

// issue makes a machine certificate.
func (i *issuer) issue(name string, usage x509.ExtKeyUsage, uris ...*url.URL) *tls.Certificate {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(i.t, err)
	return i.sign(name, usage, key, uris...)
}

func (i *issuer) sign(name string, usage x509.ExtKeyUsage, key crypto.Signer, uris ...*url.URL) *tls.Certificate {
	i.t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	require.NoError(i.t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-leafLife), NotAfter: time.Now().Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage}, URIs: uris,
	}, i.cert, key.Public(), i.key)
	require.NoError(i.t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(i.t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// forger is our own authority in the hands of a thief of its key.
func (s *site) forger() *issuer {
	s.t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(s.dir, "pki", name))
		require.NoError(s.t, err)
		block, _ := pem.Decode(data)
		return block.Bytes
	}
	cert, err := x509.ParseCertificate(read("intermediate.pem"))
	require.NoError(s.t, err)
	key, err := x509.ParsePKCS8PrivateKey(read("intermediate.key"))
	require.NoError(s.t, err)
	return &issuer{s.t, cert, key.(crypto.Signer)}
}

func asPEM(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}
