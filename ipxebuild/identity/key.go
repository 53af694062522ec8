package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
)

const redacted = "[redacted]"

// Key is a private key. Every way of formatting, marshalling or logging it
// gives [redacted].
type Key struct {
	// A func, because fmt prints the unexported fields of a struct around us
	// without asking for our methods.
	der    func() []byte
	signer func() crypto.Signer
	kind   string
}

// newKey takes the keys that some iPXE can use: RSA, and ECDSA on the curves
// that iPXE 2.0.0 has.
func newKey(signer crypto.Signer) (Key, error) {
	switch k := signer.(type) {
	case *rsa.PrivateKey:
		return wrap(signer, x509.MarshalPKCS1PrivateKey(k), fmt.Sprintf("RSA-%d", k.N.BitLen())), nil
	case *ecdsa.PrivateKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return Key{}, fmt.Errorf("iPXE does not know the curve %s: use RSA-2048 or P-256", k.Params().Name)
		}
		der, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			return Key{}, fmt.Errorf("encode: %w", err)
		}
		return wrap(signer, der, k.Params().Name), nil
	case ed25519.PrivateKey:
		return Key{}, errors.New("iPXE does not know Ed25519: use RSA-2048 or P-256")
	}
	return Key{}, fmt.Errorf("iPXE does not know keys of type %T: use RSA-2048 or P-256", signer)
}

func wrap(k crypto.Signer, der []byte, kind string) Key {
	return Key{der: func() []byte { return der }, signer: func() crypto.Signer { return k }, kind: kind}
}

// Signer is the key to sign and compare with; nil for the zero Key.
func (k Key) Signer() crypto.Signer {
	if k.signer == nil {
		return nil
	}
	return k.signer()
}

// DER returns a copy of the key as iPXE's setting privkey takes it: PKCS #1 for
// RSA, SEC 1 for EC; nil for the zero Key.
func (k Key) DER() []byte {
	if k.der == nil {
		return nil
	}
	return slices.Clone(k.der())
}

// Type is for people: RSA-2048, P-256.
func (k Key) Type() string { return k.kind }

// String returns [redacted].
func (k Key) String() string { return redacted }

// GoString returns [redacted].
func (k Key) GoString() string { return redacted }

// Format writes [redacted] for every verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText returns [redacted].
func (k Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON returns "[redacted]".
func (k Key) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue returns [redacted].
func (k Key) LogValue() slog.Value { return slog.StringValue(redacted) }
