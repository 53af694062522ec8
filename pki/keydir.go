package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/nestboot/nestboot/pki/vault"
)

// keyBits is the size of every RSA key. iPXE before 2.0.0 knows no ECDSA, and
// its RSA handshake takes seconds beyond 2048 bits on slow firmware.
const keyBits = 2048

// keyDir is a directory of the PKI's own keys and certificates.
type keyDir struct {
	dir   string
	vault *vault.Vault // of the keys
	rsa   func() (*rsa.PrivateKey, error)
}

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey() (*rsa.PrivateKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, fmt.Errorf("generate rsa key: %w", err)
	}
	return key, nil
}

func newECKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate p-256 key: %w", err)
	}
	return key, nil
}

// isEC reports whether a public key is an elliptic curve's.
func isEC(key crypto.PublicKey) bool {
	_, ok := key.(*ecdsa.PublicKey)
	return ok
}

// belongs reports whether key is the private half of cert's.
func belongs(key crypto.Signer, cert *x509.Certificate) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}

func openKeyDir(d keyDir) (keyDir, error) {
	if d.dir == "" {
		return d, errors.New("a directory for keys is required")
	}
	if err := vault.Dir(d.dir); err != nil {
		return d, fmt.Errorf("directory for keys: %w", err)
	}
	return d, nil
}

// sub is a directory below d, which may not exist yet.
func (d keyDir) sub(name string) keyDir {
	d.dir = filepath.Join(d.dir, name)
	return d
}

func (d keyDir) path(file string) string { return filepath.Join(d.dir, file) }

func (d keyDir) has(file string) (bool, error) {
	switch _, err := os.Lstat(d.path(file)); {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	default:
		return false, fmt.Errorf("look for %s: %w", file, err)
	}
}

// readKey fails with fs.ErrNotExist when name has no key.
func (d keyDir) readKey(name string) (crypto.Signer, error) {
	path := d.path(name + ".key")
	text, err := d.vault.Read(path)
	if err != nil {
		return nil, err
	}
	return parseKey(path, text)
}

// parseKey takes the first private key in PEM form, of RSA or an elliptic curve.
func parseKey(path string, text []byte) (crypto.Signer, error) {
	var key any
	var err error
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "EC PARAMETERS": // openssl ecparam writes it first
			continue
		case block.Type == "ENCRYPTED PRIVATE KEY", block.Headers["DEK-Info"] != "":
			return nil, fmt.Errorf("%s is encrypted with a passphrase: decrypt it with openssl pkey, and configure keys to have our copies encrypted", path)
		case block.Type == "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case block.Type == "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case block.Type == "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", path, err)
		}
		switch key := key.(type) {
		case *rsa.PrivateKey:
			return key, nil
		case *ecdsa.PrivateKey:
			return key, nil
		}
		return nil, fmt.Errorf("%s holds a %T, not an rsa or ec key", path, key)
	}
	return nil, fmt.Errorf("%s holds no PRIVATE KEY in PEM form: restore it from a backup", path)
}

// readCerts returns the certificates of name's file, at least one. It fails with
// fs.ErrNotExist when there is none.
func (d keyDir) readCerts(name string) ([]*x509.Certificate, error) {
	path := d.path(name + ".pem")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return parseCerts(path, text)
}

// readCert returns the first one.
func (d keyDir) readCert(name string) (*x509.Certificate, error) {
	certs, err := d.readCerts(name)
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

// parseCerts returns the certificates of a PEM file, at least one.
func parseCerts(path string, text []byte) (certs []*x509.Certificate, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", path, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s holds no CERTIFICATE in PEM form: restore it from a backup", path)
	}
	return certs, nil
}

// readAll returns the certificates of each file that begins with prefix, by the
// rest of its name.
func (d keyDir) readAll(prefix string) (map[string][]*x509.Certificate, error) {
	paths, err := filepath.Glob(d.path(prefix + "*.pem"))
	if err != nil {
		return nil, fmt.Errorf("look for certificates: %w", err)
	}
	all := map[string][]*x509.Certificate{}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".pem")
		if all[strings.TrimPrefix(name, prefix)], err = d.readCerts(name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// readPair fails with fs.ErrNotExist when either half is missing.
func (d keyDir) readPair(name string) (pair, error) {
	key, err := d.readKey(name)
	if err != nil {
		return pair{}, err
	}
	cert, err := d.readCert(name)
	if err != nil {
		return pair{}, err
	}
	if !belongs(key, cert) {
		return pair{}, fmt.Errorf("%[1]s.key does not belong to %[1]s.pem: restore both from the same backup", d.path(name))
	}
	return pair{cert: cert, key: key}, nil
}

func (d keyDir) writeKey(name string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode %s key: %w", name, err)
	}
	return d.vault.Write(d.path(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// writeCerts replaces a file so that a crash leaves the old or the new one.
func (d keyDir) writeCerts(name string, chain ...*x509.Certificate) error {
	var text bytes.Buffer
	for _, cert := range chain {
		if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}); err != nil {
			return fmt.Errorf("encode %s certificate: %w", name, err)
		}
	}
	path := d.path(name + ".pem")
	err := renameio.WriteFile(path, text.Bytes(), 0o600, renameio.WithTempDir(d.dir), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return d.sync()
}

// writePair writes the key first: without its certificate it is worth nothing.
func (d keyDir) writePair(name string, p pair, issuers []*x509.Certificate) error {
	if err := d.writeKey(name, p.key); err != nil {
		return err
	}
	return d.writeCerts(name, append([]*x509.Certificate{p.cert}, issuers...)...)
}

// rename puts a file in the place of another, durably.
func (d keyDir) rename(from, to string) error {
	if err := os.Rename(d.path(from), d.path(to)); err != nil {
		return fmt.Errorf("put %s in place: %w", to, err)
	}
	return d.sync()
}

// remove is done when the files are gone for good, those too that were not there.
func (d keyDir) remove(files ...string) error {
	for _, file := range files {
		if err := os.Remove(d.path(file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove: %w", err)
		}
	}
	return d.sync()
}

// removeAll removes the directory.
func (d keyDir) removeAll() error {
	if err := os.RemoveAll(d.dir); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	return keyDir{dir: filepath.Dir(d.dir)}.sync()
}

// sync makes renames durable, so that files appear in the order in which they
// were written whenever the power fails.
func (d keyDir) sync() error {
	f, err := os.Open(d.dir)
	if err != nil {
		return fmt.Errorf("open directory for keys: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync directory for keys: %w", err)
	}
	return nil
}
