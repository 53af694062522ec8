package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
	"math/big"
)

// cheapKey is an RSA-2048 key of 16 primes: signing with it costs the
// generator a tenth of what a real key costs, so that one core of clients keeps
// one core of server busy. Its modulus is easily factored and of no use beyond
// a bench; for who verifies it is any RSA-2048 key with exponent 65537.
type cheapKey struct {
	public rsa.PublicKey
	parts  []part
}

// part is what the Chinese remainder theorem needs of one prime.
type part struct{ prime, exponent, weight *big.Int }

const (
	cheapPrimes   = 16
	cheapExponent = 65537
	keyBits       = 2048
)

func newCheapKey() (*cheapKey, error) {
	one, e := big.NewInt(1), big.NewInt(cheapExponent)
	for {
		k := &cheapKey{public: rsa.PublicKey{N: one, E: cheapExponent}}
		primes, err := cheapModulus()
		if err != nil {
			return nil, fmt.Errorf("make client key: %w", err)
		}
		for _, p := range primes {
			k.public.N = new(big.Int).Mul(k.public.N, p)
		}
		for _, p := range primes {
			rest := new(big.Int).Div(k.public.N, p)
			inverse := new(big.Int).ModInverse(rest, p) // nil where a prime comes twice
			d := new(big.Int).ModInverse(e, new(big.Int).Sub(p, one))
			if inverse == nil || d == nil {
				break
			}
			k.parts = append(k.parts, part{p, d, rest.Mul(rest, inverse)})
		}
		if len(k.parts) == cheapPrimes && k.public.N.BitLen() == keyBits {
			return k, nil
		}
	}
}

// cheapModulus makes primes whose product has about the wanted length: the
// last one makes up for the bits that each product loses.
func cheapModulus() (primes []*big.Int, err error) {
	n := big.NewInt(1)
	for i := range cheapPrimes {
		bits := keyBits / cheapPrimes
		if i == cheapPrimes-1 {
			bits = keyBits + 1 - n.BitLen()
		}
		p, err := rand.Prime(rand.Reader, bits)
		if err != nil {
			return nil, err
		}
		primes, n = append(primes, p), n.Mul(n, p)
	}
	return primes, nil
}

// Public implements crypto.Signer.
func (k *cheapKey) Public() crypto.PublicKey { return &k.public }

// sha256Info is the DigestInfo of SHA-256 without the digest (RFC 8017, 9.2).
const sha256Info = "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"

// Sign implements crypto.Signer: RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017, 8.2.1).
func (k *cheapKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if _, pss := opts.(*rsa.PSSOptions); pss || opts.HashFunc() != crypto.SHA256 {
		return nil, fmt.Errorf("sign: want PKCS #1 v1.5 with SHA-256, not %T", opts)
	}
	message := make([]byte, keyBits/8)
	tail := append([]byte("\x00"+sha256Info), digest...)
	message[1] = 1
	for i := 2; i < len(message)-len(tail); i++ {
		message[i] = 0xff
	}
	copy(message[len(message)-len(tail):], tail)
	m, sum := new(big.Int).SetBytes(message), new(big.Int)
	for _, p := range k.parts {
		r := new(big.Int).Mod(m, p.prime)
		r.Exp(r, p.exponent, p.prime)
		sum.Add(sum, r.Mul(r, p.weight))
	}
	return sum.Mod(sum, k.public.N).FillBytes(message), nil
}
