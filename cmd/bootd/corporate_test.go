package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// corporate is the authority of a customer.
type corporate struct {
	t    *testing.T
	cert *x509.Certificate
	key  *rsa.PrivateKey
	last int64
}

func newCorporate(t *testing.T, name string) *corporate {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	c := &corporate{t: t, key: key}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-48 * time.Hour), NotAfter: now.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	require.NoError(t, err)
	c.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	return c
}

// issue makes a certificate of the authority from a template with names and
// usage.
func (c *corporate) issue(tmpl x509.Certificate, ec bool) tls.Certificate {
	c.t.Helper()
	c.last++
	now := time.Now()
	tmpl.SerialNumber, tmpl.NotBefore, tmpl.NotAfter = big.NewInt(c.last), now.Add(-25*time.Hour), now.AddDate(1, 0, 0)
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	if tmpl.IsCA {
		tmpl.KeyUsage |= x509.KeyUsageCertSign
	}
	var key any
	var public any
	if ec {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(c.t, err)
		key, public = k, k.Public()
	} else {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		require.NoError(c.t, err)
		key, public = k, k.Public()
		tmpl.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	der, err := x509.CreateCertificate(rand.Reader, &tmpl, c.cert, public, c.key)
	require.NoError(c.t, err)
	return tls.Certificate{Certificate: [][]byte{der, c.cert.Raw}, PrivateKey: key}
}

// machine is a client certificate.
func (c *corporate) machine(name string) tls.Certificate {
	return c.issue(x509.Certificate{
		Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, true)
}

// server is a server certificate.
func (c *corporate) server(names ...string) tls.Certificate {
	return c.issue(x509.Certificate{
		Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, false)
}

// pem is the authority's own certificate.
func (c *corporate) pem() string { return certPEM(c.cert.Raw) }

func certPEM(der ...[]byte) string {
	var out []byte
	for _, d := range der {
		out = slices.Concat(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d}))
	}
	return string(out)
}

// pairPEM is a certificate with its chain, and its key.
func pairPEM(t *testing.T, c tls.Certificate) string {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	require.NoError(t, err)
	return certPEM(c.Certificate...) + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
}
