package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
)

// keyBits is the size of every RSA key. iPXE before 2.0.0 knows no ECDSA, and
// its RSA handshake takes seconds beyond 2048 bits on slow firmware.
const keyBits = 2048

// keyDir is the directory of the PKI's own keys and certificates.
type keyDir string

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  *rsa.PrivateKey
}

func newKey() (*rsa.PrivateKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, fmt.Errorf("generate rsa key: %w", err)
	}
	return key, nil
}

func openKeyDir(dir string) (keyDir, error) {
	if dir == "" {
		return "", errors.New("a directory for keys is required")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the directory for keys: %w", err)
	}
	return keyDir(dir), private(dir, 0o700)
}

// private fails unless path belongs to this process's user alone, and says
// what to type. It doesn't repair: a key that others could read may have been
// read.
func private(path string, mode fs.FileMode) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("check permissions: %w", err)
	}
	uid := os.Geteuid()
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != uid {
		return fmt.Errorf("%s belongs to user %d, but this process runs as user %d: start it as that user, or run: chown -R %d %s", path, st.Uid, uid, uid, path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("%s is open to other users (mode %04o): run: chmod %04o %s", path, perm, mode, path)
	}
	return nil
}

func (d keyDir) path(file string) string { return filepath.Join(string(d), file) }

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
func (d keyDir) readKey(name string) (*rsa.PrivateKey, error) {
	path := d.path(name + ".key")
	if err := private(path, 0o600); err != nil {
		return nil, err
	}
	der, err := readPEM(path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	rsaKey, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T, not an rsa key", path, key)
	}
	return rsaKey, nil
}

// readCert returns the first certificate of name's file. It fails with
// fs.ErrNotExist when there is none.
func (d keyDir) readCert(name string) (*x509.Certificate, error) {
	path := d.path(name + ".pem")
	der, err := readPEM(path, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	return cert, nil
}

func readPEM(path, kind string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s holds no %s in PEM form: restore it from a backup", path, kind)
	}
	return block.Bytes, nil
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
	if !key.PublicKey.Equal(cert.PublicKey) {
		return pair{}, fmt.Errorf("%[1]s.key does not belong to %[1]s.pem: restore both from the same backup", d.path(name))
	}
	return pair{cert: cert, key: key}, nil
}

func (d keyDir) writeKey(name string, key *rsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode %s key: %w", name, err)
	}
	return d.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func (d keyDir) writeCerts(name string, chain ...*x509.Certificate) error {
	var text bytes.Buffer
	for _, cert := range chain {
		if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}); err != nil {
			return fmt.Errorf("encode %s certificate: %w", name, err)
		}
	}
	return d.write(name+".pem", text.Bytes())
}

// write replaces a file so that a crash leaves the old or the new one. The
// temporary file stays in the directory: a key must not pass through /tmp.
func (d keyDir) write(file string, data []byte) error {
	err := renameio.WriteFile(d.path(file), data, 0o600, renameio.WithTempDir(string(d)), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return fmt.Errorf("write %s: %w", d.path(file), err)
	}
	return d.sync()
}

// sync makes renames durable, so that files appear in the order in which they
// were written whenever the power fails.
func (d keyDir) sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return fmt.Errorf("open directory for keys: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync directory for keys: %w", err)
	}
	return nil
}
