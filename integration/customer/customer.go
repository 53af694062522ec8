// Package customer plays a customer's own certificate authority: it issues
// what benches and end-to-end tests bring along, and none of it is made by
// nestboot. Begin at NewRoot.
package customer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"time"
)

// KeyType is the type of an authority's key and of those that it issues to.
type KeyType string

// The types, named as benches are.
const (
	RSA2048 KeyType = "rsa2048"
	P256    KeyType = "p256"
)

// NewKey makes a key.
func (k KeyType) NewKey() (crypto.Signer, error) {
	if k == RSA2048 {
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// Authority issues certificates.
type Authority struct {
	Cert  *x509.Certificate
	Chain []*x509.Certificate // Cert and its issuers, the root last
	key   crypto.Signer
	typ   KeyType
}

// Leaf is a certificate to be issued.
type Leaf struct {
	Name  string // common name
	Usage x509.ExtKeyUsage
	Hosts []string
	Key   crypto.PublicKey // of a key that is there already; nil: Issue makes one
}

// Pair is an issued certificate with its key.
type Pair struct {
	Cert  *x509.Certificate
	Chain []*x509.Certificate // Cert and its issuers, the root last
	Key   crypto.Signer       // nil where Leaf.Key was given
}

// NewRoot makes an authority that signs itself.
func NewRoot(k KeyType, name string) (*Authority, error) { return newAuthority(k, name, nil) }

// Sub makes an authority below a.
func (a *Authority) Sub(name string) (*Authority, error) { return newAuthority(a.typ, name, a) }

func newAuthority(k KeyType, name string, parent *Authority) (*Authority, error) {
	key, err := k.NewKey()
	if err != nil {
		return nil, fmt.Errorf("make key of %s: %w", name, err)
	}
	tpl := template(name)
	tpl.IsCA, tpl.BasicConstraintsValid, tpl.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	a := &Authority{key: key, typ: k}
	signer := &Authority{Cert: tpl, key: key}
	if parent != nil {
		signer = parent
	}
	if a.Cert, err = signer.sign(tpl, key.Public()); err != nil {
		return nil, err
	}
	a.Chain = append([]*x509.Certificate{a.Cert}, signer.Chain...)
	return a, nil
}

// Issue makes a certificate, valid from yesterday for a month.
func (a *Authority) Issue(l Leaf) (p Pair, err error) {
	if l.Key == nil {
		if p.Key, err = a.typ.NewKey(); err != nil {
			return p, fmt.Errorf("make key of %s: %w", l.Name, err)
		}
		l.Key = p.Key.Public()
	}
	tpl := template(l.Name)
	tpl.KeyUsage, tpl.ExtKeyUsage, tpl.DNSNames = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{l.Usage}, l.Hosts
	if p.Cert, err = a.sign(tpl, l.Key); err != nil {
		return p, err
	}
	p.Chain = append([]*x509.Certificate{p.Cert}, a.Chain...)
	return p, nil
}

func (a *Authority) sign(tpl *x509.Certificate, key crypto.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, tpl, a.Cert, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", tpl.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

func template(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(30 * 24 * time.Hour),
	}
}

// WriteCerts writes certificates as PEM.
func WriteCerts(path string, certs ...*x509.Certificate) error {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return os.WriteFile(path, out, 0o600)
}

// WriteKey writes a key as PEM, PKCS #8.
func WriteKey(path string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}
