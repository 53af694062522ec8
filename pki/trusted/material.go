package trusted

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Limits of what is read.
const (
	maxCertificates = 16
	maxPEM          = 256 << 10 // bytes
	minRSA, maxRSA  = 2048, 8192
)

// material is what an entry is made of.
type material struct {
	certs   []*x509.Certificate // in the order of the PEM
	anchors []*x509.Certificate // those of them that are trusted themselves
	allow   []pattern
}

// pem is all of it that is kept: whatever stood around the certificates is not.
func (m material) pem() string {
	var text bytes.Buffer
	for _, c := range m.certs {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return text.String()
}

// readCertificates takes foreign text. No message repeats any of it.
func readCertificates(e *Invalid, text string) []*x509.Certificate {
	switch {
	case len(text) > maxPEM:
		e.add("pem", "is %d bytes: want at most %d", len(text), maxPEM)
		return nil
	case strings.Contains(text, "PRIVATE KEY"):
		e.add("pem", "holds a PRIVATE KEY. Nothing was stored. Only certificates belong here; "+
			"that key has now crossed the network and lies in memory: consider replacing it")
		return nil
	}
	var certs []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if len(certs) == maxCertificates {
			e.add("pem", "holds more than %d certificates", maxCertificates)
			return nil
		}
		c, err := readCertificate(block)
		if err != nil {
			e.add("pem", "block %d: %.300s", len(certs)+1, err)
			return nil
		}
		if slices.ContainsFunc(certs, c.Equal) {
			e.add("pem", "certificate %d is there twice", len(certs)+1)
			return nil
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		e.add("pem", "holds no certificate in PEM form (BEGIN CERTIFICATE): convert it with openssl x509 -inform der")
	}
	return certs
}

func readCertificate(block *pem.Block) (*x509.Certificate, error) {
	if block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("is a %.40q, not a CERTIFICATE", block.Type)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("is not a certificate: %w", err)
	}
	return c, checkKey(c)
}

// checkKey refuses keys that are weak, or that would keep us busy.
func checkKey(c *x509.Certificate) error {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA || n > maxRSA {
			return fmt.Errorf("has an rsa key of %d bits: want %d to %d", n, minRSA, maxRSA)
		}
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P224() {
			return fmt.Errorf("has a key on curve P-224: want P-256, P-384 or P-521")
		}
		return nil
	case ed25519.PublicKey:
		return nil
	}
	return fmt.Errorf("has a %s key: want rsa, ecdsa or ed25519", c.PublicKeyAlgorithm)
}

func checkAuthority(e *Invalid, text string, now time.Time) material {
	m := material{certs: readCertificates(e, text)}
	for _, c := range m.certs {
		name := nameOf(c)
		switch {
		case !c.BasicConstraintsValid || !c.IsCA:
			e.add("pem", "%s is no authority (basic constraint CA): to accept this certificate alone, register it as a pin", name)
		case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
			e.add("pem", "%s may not sign certificates (its key usage)", name)
		case len(c.UnhandledCriticalExtensions) > 0:
			e.add("pem", "%s has a critical extension that is not understood: %s", name, c.UnhandledCriticalExtensions[0])
		}
		if err := checkConstraints(c); err != nil {
			e.add("pem", "%s %s", name, err)
		}
		if m.isAnchor(e, c) {
			m.anchors = append(m.anchors, c)
		}
	}
	for _, c := range m.anchors {
		if now.After(c.NotAfter) {
			e.add("pem", "%s expired at %s", nameOf(c), c.NotAfter.UTC().Format(time.DateTime))
		}
	}
	if len(m.certs) > 0 && len(m.anchors) == 0 {
		e.add("pem", "each certificate was issued by another of them: there is none to trust")
	}
	return m
}

// isAnchor goes by names, and then insists on the signature: an intermediate
// whose signature we cannot check must not become trusted by that.
func (m material) isAnchor(e *Invalid, c *x509.Certificate) bool {
	if bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
		return true // whatever the algorithm: nothing depends on this signature
	}
	var err error
	for _, parent := range m.certs {
		if parent == c || !bytes.Equal(c.RawIssuer, parent.RawSubject) {
			continue
		}
		if err = c.CheckSignatureFrom(parent); err == nil {
			return false
		}
	}
	if err != nil {
		e.add("pem", "%s names another of the certificates as its issuer, which did not sign it: %s", nameOf(c), err)
	}
	return err == nil
}

func checkPinned(e *Invalid, text, match string, now time.Time) material {
	m := material{certs: readCertificates(e, text)}
	if len(m.certs) == 0 {
		return m
	}
	if len(m.certs) > 1 {
		e.add("pem", "holds %d certificates, and a pin is one: leave out those that issued it", len(m.certs))
	}
	m.anchors = m.certs[:1]
	if match == MatchKey { // the certificates to come are what is asked about
		return m
	}
	c := m.certs[0]
	if now.After(c.NotAfter) {
		e.add("pem", "%s expired at %s", nameOf(c), c.NotAfter.UTC().Format(time.DateTime))
	}
	if _, reason := checkUsage(c); reason != "" {
		e.add("pem", "%s could not be used: %s", nameOf(c), reason)
	}
	return m
}

// nameOf is what messages call a certificate: quoted and bounded, since it is
// foreign text.
func nameOf(c *x509.Certificate) string { return fmt.Sprintf("%.120q", c.Subject.String()) }
