// Package identity reads what an artifact set is made of on an admin's own
// machine: a client certificate, its private key and the certificate of the
// trust root, from the files that PKI tools write: PEM, DER and PKCS #12, keys
// in the clear or encrypted.
//
// It reads and matches; whether iPXE could use the result is decided by whoever
// builds with it. Files are foreign: sizes, allocations and the work that a key
// derivation may ask for are bounded. Begin at Read.
package identity

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
)

// MaxFile is the largest file that is read, in bytes. A PKCS #12 file with a
// chain has about 10 KiB.
const MaxFile = 64 << 10

// Source is one file.
type Source struct {
	Name string // for errors and for the password's prompt
	Data []byte
}

// Input is what Read makes an identity from.
type Input struct {
	Cert Source // the client certificate, with or without its chain, or a PKCS #12 file
	Key  Source // its private key; zero when Cert holds it too
	Root Source // the certificate that iPXE shall trust, and nothing else
	// Password is asked for the password of the file with that name, once, and
	// only if the file cannot be read without. nil refuses such files.
	Password func(name string) ([]byte, error)
}

// Identity is a client certificate with its key, and whom it trusts.
type Identity struct {
	Leaf  *x509.Certificate
	Chain []*x509.Certificate // what stood beside the leaf; iPXE sends the leaf alone
	Root  *x509.Certificate
	Key   Key
}

// RootFingerprint is the SHA-256 of the root's DER, which is what iPXE trusts.
func (i Identity) RootFingerprint() [sha256.Size]byte { return sha256.Sum256(i.Root.Raw) }

// Read reads the files and finds the certificate that belongs to the key. The
// error names the file and what to do.
func Read(in Input) (Identity, error) {
	root, err := ReadRoot(in.Root)
	if err != nil {
		return Identity{}, err
	}
	held, err := read(in.Cert, in.Password)
	if err != nil {
		return Identity{}, err
	}
	if len(held.certs) == 0 {
		return Identity{}, fmt.Errorf("%s holds no certificate: name the file with the client certificate", in.Cert.Name)
	}
	keys, from := held.keys, in.Cert.Name
	if in.Key.Name != "" {
		other, err := read(in.Key, in.Password)
		if err != nil {
			return Identity{}, err
		}
		keys, from = other.keys, in.Key.Name
	}
	if len(keys) != 1 {
		return Identity{}, fmt.Errorf("%s holds %d private keys instead of one: name the file with the certificate's key", from, len(keys))
	}
	key, err := newKey(keys[0])
	if err != nil {
		return Identity{}, fmt.Errorf("private key in %s: %w", from, err)
	}
	leaf, chain, err := match(held.certs, keys[0])
	if err != nil {
		return Identity{}, fmt.Errorf("private key in %s, certificate in %s: %w", from, in.Cert.Name, err)
	}
	return Identity{Leaf: leaf, Chain: chain, Root: root, Key: key}, nil
}

// ReadRoot reads a trust root: one certificate of a CA.
func ReadRoot(s Source) (*x509.Certificate, error) {
	held, err := read(s, nil)
	if err != nil {
		return nil, err
	}
	switch {
	case len(held.keys) > 0:
		return nil, fmt.Errorf("%s holds a private key: a trust root is a certificate alone, so leave the key where it is", s.Name)
	case len(held.certs) != 1:
		return nil, fmt.Errorf("%s holds %d certificates instead of one: "+
			"iPXE trusts one root, so put the root that the server's chain ends in into a file of its own", s.Name, len(held.certs))
	case !held.certs[0].IsCA:
		return nil, fmt.Errorf("%s holds the certificate of %q, which is not a CA: "+
			"name the root certificate that the server's chain ends in", s.Name, held.certs[0].Subject)
	}
	return held.certs[0], nil
}

// match separates the certificate that the key belongs to from the others.
func match(certs []*x509.Certificate, key crypto.Signer) (leaf *x509.Certificate, chain []*x509.Certificate, err error) {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return nil, nil, fmt.Errorf("keys of type %T cannot be compared", key)
	}
	for _, c := range certs {
		switch {
		case !public.Equal(c.PublicKey):
			chain = append(chain, c)
		case leaf != nil:
			return nil, nil, errors.New("two certificates belong to the key: leave only the one to use")
		default:
			leaf = c
		}
	}
	if leaf == nil {
		return nil, nil, fmt.Errorf("the key does not belong to the certificate of %q: "+
			"give the key that this certificate was requested with", certs[0].Subject)
	}
	return leaf, chain, nil
}
