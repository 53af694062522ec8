package ipxebuild

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func newRSA(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	require.NoError(t, err)
	return k
}

func newEC(t *testing.T, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	require.NoError(t, err)
	return k
}

func TestCheckClient(t *testing.T) {
	rsaKey, ecKey, p384 := newRSA(t, 2048), newEC(t, elliptic.P256()), newEC(t, elliptic.P384())
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		key, issuer crypto.Signer
		change      func(*x509.Certificate)
		with        crypto.Signer // the key that is handed over, if it is another one
		now         time.Time
		want        string // empty: good
	}{
		"RSA":               {key: rsaKey, issuer: rsaKey, now: now},
		"P-256":             {key: ecKey, issuer: p384, now: now},
		"no time":           {key: rsaKey, issuer: rsaKey},
		"expired":           {key: rsaKey, issuer: rsaKey, now: now.AddDate(1, 0, 0), want: "expired on 2027-01-01"},
		"not yet valid":     {key: rsaKey, issuer: rsaKey, now: now.AddDate(-1, 0, 0), want: "not valid before 2026-01-01"},
		"another key":       {key: rsaKey, issuer: rsaKey, with: ecKey, now: now, want: "does not belong"},
		"for servers":       {key: rsaKey, issuer: rsaKey, change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, now: now, want: "clientAuth"},
		"for nothing":       {key: rsaKey, issuer: rsaKey, change: func(c *x509.Certificate) { c.ExtKeyUsage = nil }, now: now, want: "clientAuth"},
		"RSA under EC":      {key: rsaKey, issuer: ecKey, now: now, want: "only if an RSA issuer"},
		"EC under RSA":      {key: ecKey, issuer: rsaKey, now: now, want: "only if an EC issuer"},
		"PSS":               {key: rsaKey, issuer: rsaKey, change: func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA256WithRSAPSS }, now: now, want: "PKCS #1 v1.5"},
		"P-384":             {key: p384, issuer: ecKey, now: now, want: "P-384: want P-256"},
		"Ed25519":           {key: edKey, issuer: edKey, now: now, want: "want RSA or P-256"},
		"RSA too short":     {key: newRSA(t, 1024), issuer: rsaKey, now: now, want: "1024 bits"},
		"several at a time": {key: rsaKey, issuer: ecKey, with: p384, now: now.AddDate(2, 0, 0), want: "does not belong to the certificate\nthe certificate expired"},
	} {
		t.Run(name, func(t *testing.T) {
			tpl := clientTemplate()
			if tt.change != nil {
				tt.change(tpl)
			}
			der, err := x509.CreateCertificate(rand.Reader, tpl, clientTemplate(), tt.key.Public(), tt.issuer)
			require.NoError(t, err)
			cert, err := x509.ParseCertificate(der)
			require.NoError(t, err)
			key := tt.key
			if tt.with != nil {
				key = tt.with
			}
			err = CheckClient(cert, key, tt.now)
			if tt.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tt.want)
			}
		})
	}
	cert, _ := client(t)
	c, err := x509.ParseCertificate(cert)
	require.NoError(t, err)
	require.Error(t, CheckClient(c, nil, now))
}

func TestKeyForms(t *testing.T) {
	for _, k := range []crypto.Signer{newRSA(t, 2048), newEC(t, elliptic.P256())} {
		der, err := MarshalKey(k)
		require.NoError(t, err)
		pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
		require.NoError(t, err)
		for _, form := range [][]byte{der, pkcs8} {
			again, err := parseKey(form)
			require.NoError(t, err)
			got, err := MarshalKey(again)
			require.NoError(t, err)
			require.Equal(t, der, got, "scripts carry one form")
		}
	}
	_, err := parseKey([]byte("secret"))
	require.ErrorContains(t, err, "PKCS #8")
	require.NotContains(t, err.Error(), "secret")
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	_, err = MarshalKey(ed)
	require.Error(t, err)
}
