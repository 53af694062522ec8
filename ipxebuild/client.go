package ipxebuild

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// KeyType is the type of a set's client key.
type KeyType string

// The types that iPXE knows.
const (
	RSA2048 KeyType = "rsa2048" // every version
	P256    KeyType = "p256"    // iPXE 2.0.0 and newer, under an EC issuer
)

// CheckClient reports all the reasons why iPXE could not boot with this
// client certificate at the given time (zero: dates are not looked at): the
// key does not match it, it has no clientAuth, it has expired or is not valid
// yet, its key is neither RSA nor P-256, or its issuer's key is of another
// kind than its own (iPXE never sends such a certificate; 1.21.1 and 2.0.0).
// Whether a version of iPXE knows the key's type, Stock.Set says.
func CheckClient(cert *x509.Certificate, key crypto.Signer, now time.Time) error {
	var errs []error
	if public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); key == nil || !ok || !public.Equal(key.Public()) {
		errs = append(errs, errors.New("the private key does not belong to the certificate"))
	}
	if !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		errs = append(errs, errors.New("the certificate is not for clients: it lacks the extended key usage clientAuth"))
	}
	switch {
	case now.IsZero():
	case now.Before(cert.NotBefore):
		errs = append(errs, fmt.Errorf("the certificate is not valid before %s", cert.NotBefore.UTC().Format(time.RFC3339)))
	case now.After(cert.NotAfter):
		errs = append(errs, fmt.Errorf("the certificate expired on %s: issue a new one", cert.NotAfter.UTC().Format(time.RFC3339)))
	}
	_, err := clientKeyType(cert)
	return errors.Join(append(errs, err)...)
}

// clientKeyType is the type of a certificate's key, if iPXE sends it.
func clientKeyType(cert *x509.Certificate) (KeyType, error) {
	switch k := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 || n > 4096 {
			return "", fmt.Errorf("the certificate has an RSA key of %d bits: want 2048 to 4096", n)
		}
		switch cert.SignatureAlgorithm {
		case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA:
			return RSA2048, nil
		}
		return "", fmt.Errorf("the certificate has an RSA key and is signed with %s: iPXE sends an RSA certificate "+
			"only if an RSA issuer signed it with SHA-2 (PKCS #1 v1.5)", cert.SignatureAlgorithm)
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return "", fmt.Errorf("the certificate has an EC key on %s: want P-256", k.Curve.Params().Name)
		}
		switch cert.SignatureAlgorithm {
		case x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
			return P256, nil
		}
		return "", fmt.Errorf("the certificate has a P-256 key and is signed with %s: iPXE sends an EC certificate "+
			"only if an EC issuer signed it", cert.SignatureAlgorithm)
	}
	return "", fmt.Errorf("the certificate has a key of type %s: want RSA or P-256", cert.PublicKeyAlgorithm)
}

// MarshalKey is a private key in the DER form that scripts carry and that
// Config.Key holds: PKCS #1 or SEC 1.
func MarshalKey(key crypto.Signer) ([]byte, error) {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return x509.MarshalPKCS1PrivateKey(k), nil
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			return nil, fmt.Errorf("encode private key: %w", err)
		}
		return der, nil
	}
	return nil, fmt.Errorf("private key of type %T: want RSA or P-256", key)
}

// parseKey reads a private key of any form that Config.Key may have.
func parseKey(der []byte) (crypto.Signer, error) {
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if s, ok := k.(crypto.Signer); ok {
			return s, nil
		}
	}
	// The parsers' errors are left out: they might show what they read.
	return nil, errors.New("private key is not DER of PKCS #1, SEC 1 or PKCS #8")
}
