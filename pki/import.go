package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// Import is an authority of the customer's, whose key this process holds.
type Import struct {
	// Certificate is a PEM file: the certificate that issues, those between it
	// and the root, and the root.
	Certificate string
	// Key is the PEM file of the key that belongs to the first certificate: RSA
	// with 2048 bits or more, or P-256 or P-384. Others than its owner and group
	// must not be able to read it.
	Key string
}

func (a *Authority) openImport(cfg Import) (*external, error) {
	chain, key, err := cfg.read()
	if err != nil {
		return nil, err
	}
	return &external{
		source: SourceImported, root: chain[len(chain)-1], issuers: chain[:len(chain)-1],
		signer: func(g *generation) (signer, error) { return a.newEmbedded(g, key) },
	}, nil
}

// Check returns what is wrong with the files, for which Open would refuse them.
func (i Import) Check() error {
	_, _, err := i.read()
	return err
}

func (i Import) read() ([]*x509.Certificate, crypto.Signer, error) {
	chain, chainErr := i.readChain()
	key, keyErr := i.readKey()
	if err := errors.Join(chainErr, keyErr); err != nil {
		return nil, nil, fmt.Errorf("imported authority: %w", err)
	}
	if !belongs(key, chain[0]) {
		return nil, nil, fmt.Errorf("imported authority: %s is not the key of the first certificate in %s, %s", i.Key, i.Certificate, chain[0].Subject)
	}
	return chain, key, nil
}

func (i Import) readChain() ([]*x509.Certificate, error) {
	text, err := os.ReadFile(i.Certificate)
	if err != nil {
		return nil, fmt.Errorf("read its certificates: %w", err)
	}
	chain, err := parseCerts(i.Certificate, text)
	if err != nil {
		return nil, err
	}
	if err := checkIssuerChain(chain); err != nil {
		return nil, fmt.Errorf("%s: %w", i.Certificate, err)
	}
	return chain, nil
}

func (i Import) readKey() (crypto.Signer, error) {
	info, err := os.Stat(i.Key)
	if err != nil {
		return nil, fmt.Errorf("look at its key: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o007 != 0 {
		return nil, fmt.Errorf("%s is open to all users (mode %04o): run: chmod o= %s", i.Key, perm, i.Key)
	}
	text, err := os.ReadFile(i.Key)
	if err != nil {
		return nil, fmt.Errorf("read its key: %w", err)
	}
	return parseKey(i.Key, text)
}

// checkIssuerChain accepts a chain from an issuing certificate to its root,
// below which iPXE could verify certificates.
func checkIssuerChain(chain []*x509.Certificate) error {
	if len(chain) < 2 {
		return errors.New("want the certificate that issues and its issuers up to the root, at least two: let the root issue an intermediate for nestboot")
	}
	for i, c := range chain {
		issuer := chain[min(i+1, len(chain)-1)]
		if err := c.CheckSignatureFrom(issuer); err != nil {
			if i == len(chain)-1 {
				return fmt.Errorf("it ends in %s, which is not a root: add its issuers up to the self-signed one: %w", c.Subject, err)
			}
			return fmt.Errorf("certificate %d, %s, was not issued by the next one, %s: want each to be followed by its issuer: %w", i+1, c.Subject, issuer.Subject, err)
		}
		if err := checkIssuer(c, i); err != nil {
			return fmt.Errorf("certificate %d, %s: %w", i+1, c.Subject, err)
		}
	}
	return nil
}

// checkIssuer looks at a certificate with so many issuers below it.
func checkIssuer(c *x509.Certificate, below int) error {
	key, isRSA := c.PublicKey.(*rsa.PublicKey)
	limited := c.MaxPathLen > 0 || c.MaxPathLen == 0 && c.MaxPathLenZero
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		return errors.New("it is not an authority's (basic constraints CA)")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("its key usage does not allow it to issue certificates")
	case limited && c.MaxPathLen < below:
		return fmt.Errorf("its path length %d allows less than %d issuers below it", c.MaxPathLen, below)
	case isRSA && key.N.BitLen() < keyBits:
		return fmt.Errorf("its RSA key has %d bits, want %d at least", key.N.BitLen(), keyBits)
	case !isRSA && !nistCurve(c.PublicKey):
		return fmt.Errorf("iPXE cannot verify a %s key: want RSA, P-256 or P-384", c.PublicKeyAlgorithm)
	}
	switch c.SignatureAlgorithm {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
		return nil
	}
	return fmt.Errorf("iPXE cannot verify a signature by %s: want RSA PKCS #1 or ECDSA with SHA-256 or longer", c.SignatureAlgorithm)
}

// nistCurve reports whether a key is on one of the curves that iPXE knows.
func nistCurve(key crypto.PublicKey) bool {
	public, ok := key.(*ecdsa.PublicKey)
	return ok && (public.Curve == elliptic.P256() || public.Curve == elliptic.P384())
}
