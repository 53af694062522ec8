package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// customer is an authority of somebody else's, in PEM files.
type customer struct {
	t         testing.TB
	dir       keyDir
	root, mid pair
	serials   int64
	now       time.Time // of what it issues
}

func newCustomer(t testing.TB, newKey func() (crypto.Signer, error)) *customer {
	t.Helper()
	return newCustomerAt(t, newKey, start)
}

func newCustomerAt(t testing.TB, newKey func() (crypto.Signer, error), now time.Time) *customer {
	t.Helper()
	c := &customer{t: t, dir: keyDir{dir: t.TempDir()}, now: now}
	c.root = c.certify("Customer Root", newKey, nil, nil)
	c.mid = c.certify("Customer Policy", newKey, &c.root, nil)
	return c
}

func newRSA() (crypto.Signer, error) { return nextKey() }

func (c *customer) certify(name string, newKey func() (crypto.Signer, error), by *pair, change func(*x509.Certificate)) pair {
	c.t.Helper()
	key, err := newKey()
	require.NoError(c.t, err)
	c.serials++
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1000 + c.serials), Subject: pkix.Name{CommonName: name}, NotBefore: c.now.Add(-2 * day), NotAfter: c.now.Add(4000 * day),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, MaxPathLen: -1,
	}
	if change != nil {
		change(tpl)
	}
	if by == nil {
		by = &pair{tpl, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, by.cert, key.Public(), by.key)
	require.NoError(c.t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(c.t, err)
	return pair{cert, key}
}

// files writes the issuer's key and a chain.
func (c *customer) files(issuer pair, chain ...*x509.Certificate) *Import {
	c.t.Helper()
	require.NoError(c.t, c.dir.writeKey("issuer", issuer.key))
	require.NoError(c.t, c.dir.writeCerts("issuer", append([]*x509.Certificate{issuer.cert}, chain...)...))
	return &Import{Certificate: c.dir.path("issuer.pem"), Key: c.dir.path("issuer.key")}
}

func TestImportedAuthority(t *testing.T) {
	for name, tt := range map[string]struct {
		newKey func() (crypto.Signer, error)
		key    string
		leafs  int
	}{
		"rsa": {newRSA, KeyRSA, 2},
		"ec":  {newECKey, KeyP256, 1},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, c := testConfig(t)
			cfg.Dir = filepath.Join(t.TempDir(), "pki")
			theirs := newCustomer(t, tt.newKey)
			first := theirs.certify("Customer Boot 1", tt.newKey, &theirs.mid, nil)
			cfg.Import = theirs.files(first, theirs.mid.cert, theirs.root.cert)
			a := openAuthority(t, cfg)
			require.Equal(t, tt.key, a.MachineKey())
			m, err := a.IssueMachine(t.Context(), "rack1", time.Time{})
			require.NoError(t, err)
			require.Equal(t, tt.key == KeyRSA, m.Key != nil)
			require.True(t, belongs(m.Signer, m.Certificate))
			require.Equal(t, []*x509.Certificate{first.cert, theirs.mid.cert, theirs.root.cert}, m.Chain)
			check := func(a *Authority) {
				require.NoError(t, verifies(a, m.Certificate))
				g := a.Generations()[0]
				require.Len(t, a.Leafs(1), tt.leafs)
				for _, leaf := range a.Leafs(1) {
					require.NoError(t, clientTrusts(leaf, "ipxe.example.net", c.Now(), theirs.root.cert))
					require.Len(t, leaf.Certificate, 4)
				}
				require.Equal(t, SourceImported, g.Source)
			}
			check(a)
			_, err = a.Rotate(t.Context())
			require.ErrorContains(t, err, "give bootd the next certificate")
			_, err = a.RotateRoot(t.Context())
			require.ErrorContains(t, err, "give bootd the next certificate")
			require.NotContains(t, listing(t, cfg.Dir), "intermediate.key", "their key stays where it is")
			served := a.ServerCertificate().Leaf
			a = openAuthority(t, cfg)
			check(a)
			require.True(t, a.ServerCertificate().Leaf.Equal(served))

			// Another issuer below the same root.
			second := theirs.certify("Customer Boot 2", tt.newKey, &theirs.root, nil)
			cfg.Import = theirs.files(second, theirs.root.cert)
			for range 2 {
				a = openAuthority(t, cfg)
				require.NoError(t, verifies(a, m.Certificate))
				require.Len(t, a.Generations(), 1)
				require.Equal(t, []*x509.Certificate{first.cert, theirs.mid.cert}, a.Generations()[0].Retired)
				require.NoError(t, verifies(a, issue(t, a, "rack2")))
				require.NoError(t, clientTrusts(a.Leafs(1)[0], "ipxe.example.net", c.Now(), theirs.root.cert))
			}

			// Another root, and then our own.
			others := newCustomer(t, newRSA)
			third := others.certify("Others Boot", newRSA, &others.root, nil)
			cfg.Import = others.files(third, others.root.cert)
			a = openAuthority(t, cfg)
			require.Len(t, a.Generations(), 2)
			require.Equal(t, "ipxe-2.example.net", a.Generations()[1].Host)
			require.NoError(t, clientTrusts(a.Leafs(2)[0], "ipxe-2.example.net", c.Now(), others.root.cert))
			require.NoError(t, clientTrusts(a.Leafs(1)[0], "ipxe.example.net", c.Now(), theirs.root.cert), "served to its end")
			require.NoError(t, verifies(a, m.Certificate))
			cfg.Import = nil
			for range 2 {
				a = openAuthority(t, cfg)
				require.Len(t, a.Generations(), 3)
				require.Equal(t, SourceOwn, newest(a).source)
				require.NoError(t, verifies(a, m.Certificate))
				require.NoError(t, verifies(a, issue(t, a, "rack3")))
			}
			_, err = a.Rotate(t.Context())
			require.NoError(t, err)

			c.Add(91 * day) // the server certificates of both that were imported are over
			a = openAuthority(t, cfg)
			require.NoError(t, clientTrusts(a.Leafs(0)[0], "boot.example.net", c.Now(), a.Root()), "boot. goes on with one that can be renewed")
			cfg.Import = theirs.files(second, theirs.root.cert)
			_, err = Open(t.Context(), cfg)
			require.ErrorContains(t, err, "is the root of generation 1 already")
		})
	}
}

func TestImportRefuses(t *testing.T) {
	theirs := newCustomer(t, newECKey)
	ed := func() (crypto.Signer, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	p521 := func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P521(), rand.Reader) }
	small := func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 1024) }
	good := theirs.certify("Boot", newECKey, &theirs.mid, nil)
	with := func(change func(*x509.Certificate)) pair {
		return theirs.certify("Boot", newECKey, &theirs.mid, change)
	}
	narrow := theirs.certify("Narrow", newECKey, &theirs.root, func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true })
	up := []*x509.Certificate{theirs.mid.cert, theirs.root.cert}
	rsaRoot := theirs.certify("RSA", newRSA, nil, nil)
	tests := []struct {
		name  string
		files func(t *testing.T) *Import
		want  string
	}{
		{"no files", func(*testing.T) *Import { return &Import{"/nonexistent", "/nonexistent"} }, "read its certificates"},
		{"no root", func(*testing.T) *Import { return theirs.files(good, theirs.mid.cert) }, "which is not a root: add its issuers"},
		{"root alone", func(*testing.T) *Import { return theirs.files(theirs.root) }, "at least two"},
		{"order", func(*testing.T) *Import { return theirs.files(good, theirs.root.cert, theirs.mid.cert) }, "followed by its issuer"},
		{"no authority", func(*testing.T) *Import {
			return theirs.files(with(func(c *x509.Certificate) { c.IsCA, c.MaxPathLen = false, 0 }), up...)
		}, "basic constraints CA"},
		{"key usage", func(*testing.T) *Import {
			return theirs.files(with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }), up...)
		}, "key usage"},
		{"path length", func(*testing.T) *Import {
			return theirs.files(theirs.certify("Boot", newECKey, &narrow, nil), narrow.cert, theirs.root.cert)
		}, "path length 0 allows less than 1"},
		{"ed25519", func(*testing.T) *Import { return theirs.files(theirs.certify("Boot", ed, &theirs.mid, nil), up...) }, "iPXE cannot verify a Ed25519 key"},
		{"p-521", func(*testing.T) *Import { return theirs.files(theirs.certify("Boot", p521, &theirs.mid, nil), up...) }, "iPXE cannot verify a ECDSA key"},
		{"small", func(t *testing.T) *Import {
			t.Setenv("GODEBUG", "rsa1024min=0")
			return theirs.files(theirs.certify("Boot", small, &theirs.mid, nil), up...)
		}, "1024 bits"},
		{"pss", func(*testing.T) *Import {
			return theirs.files(theirs.certify("Boot", newECKey, &rsaRoot, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA256WithRSAPSS }), rsaRoot.cert)
		}, "signature by SHA256-RSAPSS"},
		{"another key", func(*testing.T) *Import {
			files := theirs.files(good, up...)
			require.NoError(t, theirs.dir.writeKey("issuer", theirs.mid.key))
			return files
		}, "is not the key of the first certificate"},
		{"key for all", func(t *testing.T) *Import {
			files := theirs.files(good, up...)
			require.NoError(t, os.Chmod(files.Key, 0o644))
			return files
		}, "chmod o= "},
		{"key with a passphrase", func(t *testing.T) *Import {
			files := theirs.files(good, up...)
			text := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})
			require.NoError(t, os.WriteFile(files.Key, text, 0o600))
			return files
		}, "encrypted with a passphrase"},
		{"name constraints", func(*testing.T) *Import {
			return theirs.files(with(func(c *x509.Certificate) {
				c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"other.example"}, true
			}), up...)
		}, "is not permitted by any constraint"},
		{"over", func(*testing.T) *Import {
			return theirs.files(with(func(c *x509.Certificate) { c.NotAfter = start.Add(-time.Hour) }), up...)
		}, "the intermediate expired"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, _ := testConfig(t)
			cfg.Dir = filepath.Join(t.TempDir(), "pki")
			cfg.Import = tt.files(t)
			_, err := Open(t.Context(), cfg)
			require.ErrorContains(t, err, tt.want)
			cfg.Import = theirs.files(good, up...)
			require.Len(t, openAuthority(t, cfg).Generations(), 1, "nothing was begun")
		})
	}
	cfg, _ := testConfig(t)
	cfg.Import, cfg.Step = theirs.files(good, up...), &StepCA{}
	_, err := Open(t.Context(), cfg)
	require.ErrorContains(t, err, "leave one of them")
	cfg.Step = nil
	_, err = Open(t.Context(), cfg)
	require.ErrorContains(t, err, "keys of a PKI that the store does not know")
}
