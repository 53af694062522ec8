package serving

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

const (
	// maxFile is how many bytes a file of certificates may have, maxChain how
	// many certificates are in it.
	maxFile  = 256 << 10
	maxChain = 8
)

// pair is a server certificate with its chain and key. It never changes.
type pair struct {
	name  string // in messages: its path, or whose it is
	cert  *tls.Certificate
	chain []*x509.Certificate // leaf first, at least one
	own   bool                // issued by our authority, which renews it
}

func (p *pair) leaf() *x509.Certificate { return p.chain[0] }

// root is the last of the chain, which faults has found to be self-signed.
func (p *pair) root() *x509.Certificate { return p.chain[len(p.chain)-1] }

func (p *pair) keyType() string {
	if _, ok := p.leaf().PublicKey.(*ecdsa.PublicKey); ok {
		return ECDSA
	}
	return RSA
}

// covers reports whether the certificate is good for a host name, and whether it
// names it rather than by a wildcard.
func (p *pair) covers(host string) (covered, exact bool) {
	for _, n := range p.leaf().DNSNames {
		if strings.EqualFold(n, host) {
			return true, true
		}
	}
	return p.leaf().VerifyHostname(host) == nil, false
}

// content is what the two files of a pair hold.
type content struct{ certificate, key []byte }

func (c content) equal(other content) bool {
	return bytes.Equal(c.certificate, other.certificate) && bytes.Equal(c.key, other.key)
}

// read reads the files of a pair. Its group may read the key: that is how
// certificates are shared among servers; all others may not.
func (f File) read() (content, error) {
	certificate, _, err := readFile(f.Certificate)
	if err != nil {
		return content{}, err
	}
	key, st, err := readFile(f.Key)
	if err != nil {
		return content{}, err
	}
	if perm := st.Mode().Perm(); perm&0o027 != 0 {
		return content{}, fmt.Errorf("%s is open to others (mode %04o): run: chmod 0640 %s", f.Key, perm, f.Key)
	}
	return content{certificate: certificate, key: key}, nil
}

func readFile(path string) ([]byte, os.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read server certificate: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	st, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("read server certificate: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read server certificate: %w", err)
	}
	if len(data) > maxFile {
		return nil, nil, fmt.Errorf("%s is larger than %d bytes: it is not a server certificate", path, maxFile)
	}
	return data, st, nil
}

// parse makes a pair of what a file holds.
func (f File) parse(c content) (*pair, error) {
	chain, err := parseChain(c.certificate)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Certificate, err)
	}
	key, err := parseKey(c.key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Key, err)
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(chain[0].PublicKey) {
		for i, other := range chain[1:] {
			if public.Equal(other.PublicKey) {
				return nil, fmt.Errorf("%s: the key in %s is that of certificate %d (%s): put the server's own certificate first", f.Certificate, f.Key, i+2, nameOf(other))
			}
		}
		return nil, fmt.Errorf("%s: the key in %s is not that of %s: give the key that it was issued for", f.Certificate, f.Key, nameOf(chain[0]))
	}
	cert := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return &pair{name: f.Certificate, cert: cert, chain: chain}, nil
}

// parseChain reads the certificates of a PEM text and skips what else is in it.
func parseChain(text []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if len(chain) == maxChain {
			return nil, fmt.Errorf("it holds more than %d certificates: leave those of the chain, from the server's to the root", maxChain)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d is damaged: %w", len(chain)+1, err)
		}
		chain = append(chain, cert)
	}
	if len(chain) == 0 {
		return nil, errors.New("it holds no certificate in PEM form")
	}
	return chain, nil
}

// parseKey reads the first private key of a PEM text. Its errors don't quote it.
func parseKey(text []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return nil, errors.New("the key is encrypted: decrypt it with: openssl pkey")
		}
		key, err := parseKeyBlock(block)
		if err != nil {
			return nil, fmt.Errorf("the key is damaged: %w", err)
		}
		switch key := key.(type) {
		case *rsa.PrivateKey:
			return key, nil
		case *ecdsa.PrivateKey:
			return key, nil
		default:
			return nil, fmt.Errorf("it holds a key of type %T, which iPXE does not know: use RSA with 2048 bits or P-256", key)
		}
	}
	return nil, errors.New("it holds no private key in PEM form")
}

func parseKeyBlock(block *pem.Block) (any, error) {
	switch block.Type {
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(block.Bytes)
	default:
		return x509.ParsePKCS8PrivateKey(block.Bytes)
	}
}

// nameOf is what a certificate is called in messages.
func nameOf(c *x509.Certificate) string {
	if s := c.Subject.String(); s != "" {
		return s
	}
	if len(c.DNSNames) > 0 {
		return c.DNSNames[0]
	}
	return "a certificate without a name"
}
