package identity

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

// patience bounds the work on one PKCS #12 file whatever it asks for.
const patience = 20 * time.Second

// pfx is the outside of a PKCS #12 file (RFC 7292, section 4).
type pfx struct {
	Version  int
	AuthSafe struct {
		ContentType asn1.ObjectIdentifier
		Content     asn1.RawValue `asn1:"tag:0,explicit,optional"`
	}
	Mac asn1.RawValue `asn1:"optional"`
}

func parsePFX(der []byte) (p pfx, ok bool) {
	p, err := parseWhole[pfx](der)
	return p, err == nil && p.Version == 3
}

// pkcs12 reads the certificates and the key. It tries without a password first,
// so that nobody is asked for one that does not exist.
func (r *reader) pkcs12(data []byte, hasMAC bool) (contents, error) {
	if err := checkDerivations(data, 0); err != nil {
		return contents{}, err
	}
	d, err := decodePKCS12(data, nil, patience)
	if errors.Is(err, pkcs12.ErrIncorrectPassword) {
		password, askErr := r.password()
		if askErr != nil {
			return contents{}, askErr
		}
		d, err = decodePKCS12(data, password, patience)
	}
	var unknown pkcs12.NotImplementedError
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return contents{}, errPassword
	case errors.As(err, &unknown):
		return contents{}, fmt.Errorf("%w: export it again with openssl pkcs12 -export", err)
	case err != nil && !hasMAC: // the library takes no password for it then
		return contents{}, fmt.Errorf("it has no MAC, which all but unencrypted files need: export it again with one: %w", err)
	case err != nil:
		return contents{}, err
	}
	held := contents{certs: append([]*x509.Certificate{d.leaf}, d.chain...)}
	err = held.add(d.key)
	return held, err
}

type decoded struct {
	key   any
	leaf  *x509.Certificate
	chain []*x509.Certificate
}

// decodePKCS12 gives up after limit. checkDerivations cannot see a key that is
// hidden in an encrypted part, where whoever knows the password may ask for any
// number of rounds, and the library cannot be stopped: what is given up goes on
// until the process ends, which of a command is now.
func decodePKCS12(data, password []byte, limit time.Duration) (decoded, error) {
	type result struct {
		decoded
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		r.key, r.leaf, r.chain, r.err = pkcs12.DecodeChain(data, string(password))
		done <- r
	}()
	select {
	case r := <-done:
		return r.decoded, r.err
	case <-time.After(limit):
		return decoded{}, fmt.Errorf("decrypting it takes longer than %s: export it again with at most %d rounds", limit, MaxIterations)
	}
}

// maxDepth is deeper than anything that is read of a PKCS #12 file.
const maxDepth = 32

// checkDerivations looks for key derivations wherever the file can be seen
// without its password, and refuses those that take too long. All of them
// (RFC 7292 MacData and pkcs-12PbeParams, RFC 8018 PBKDF2-params) are a salt,
// an octet string, with the number of rounds behind it.
func checkDerivations(der []byte, depth int) error {
	salt := false
	for len(der) > 0 && depth < maxDepth {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil {
			return nil // this octet string is not DER; if the file is not, the library says so
		}
		der = rest
		if salt && v.Class == asn1.ClassUniversal && v.Tag == asn1.TagInteger {
			rounds, err := parseWhole[int64](v.FullBytes)
			if err != nil {
				return fmt.Errorf("rounds of key derivation: %w", err)
			}
			if err := checkIterations(rounds); err != nil {
				return err
			}
		}
		salt = v.Tag == asn1.TagOctetString // of any class, which the library does not look at
		if v.IsCompound || salt {
			if err := checkDerivations(v.Bytes, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}
