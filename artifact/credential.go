package artifact

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/nestboot/nestboot/ipxebuild"
	"github.com/nestboot/nestboot/pki/vault"
)

// credentialFile holds certificate and key in one file, so that they change
// together.
const credentialFile = "client.pem"

// credential is a set's certificate and its key as DER.
type credential struct {
	cert       *x509.Certificate
	key        []byte
	generation int // that issued the certificate
}

// keyDER encodes a key as iPXE reads it, and names that form.
func keyDER(key crypto.PrivateKey) (kind string, der []byte, err error) {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key), nil
	case *ecdsa.PrivateKey:
		der, err = x509.MarshalECPrivateKey(key)
		return "EC PRIVATE KEY", der, err
	}
	return "", nil, fmt.Errorf("the key is a %T, neither RSA nor EC", key)
}

func (s *Sets) dirOf(r record) string { return filepath.Join(s.cfg.Dir, r.dir()) }

// issue makes a new certificate of a generation for the set and writes it down,
// in the place of the former one.
func (s *Sets) issue(ctx context.Context, r record, generation int) (credential, error) {
	dir := s.dirOf(r)
	if err := vault.Dir(dir); err != nil {
		return credential{}, err
	}
	var until time.Time
	if r.Spec.ExpiresAt != nil {
		until = *r.Spec.ExpiresAt
	}
	issued, err := s.cfg.Authority.IssueMachineOf(ctx, generation, r.Spec.Name, until)
	if err != nil {
		return credential{}, fmt.Errorf("issue certificate: %w", err)
	}
	s.step("issued")
	if _, err := s.cfg.Authority.Verify([]*x509.Certificate{issued.Certificate}, s.cfg.Now()); err != nil {
		return credential{}, fmt.Errorf("the new certificate would not be good, the former one stays: %w", err)
	}
	kind, der, err := keyDER(issued.Signer)
	if err != nil {
		return credential{}, err
	}
	c := credential{cert: issued.Certificate, key: der, generation: issued.Generation}
	out := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw}),
		pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: c.key})...)
	if err := s.cfg.Vault.Write(filepath.Join(dir, credentialFile), out); err != nil {
		return credential{}, fmt.Errorf("write certificate: %w", err)
	}
	if err := syncDir(s.cfg.Dir); err != nil {
		return credential{}, err
	}
	return c, nil
}

// stored reads what issue wrote, and says why it is not good at the given time.
// The certificate is returned whenever it can be read.
func (s *Sets) stored(r record, at time.Time) (credential, error) {
	data, err := s.cfg.Vault.Read(filepath.Join(s.dirOf(r), credentialFile))
	if err != nil {
		return credential{}, fmt.Errorf("read certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return credential{}, fmt.Errorf("stored certificate is damaged: %w", err)
	}
	_, der, err := keyDER(pair.PrivateKey)
	if err != nil {
		return credential{}, fmt.Errorf("stored certificate cannot be used: %w", err)
	}
	c := credential{cert: pair.Leaf, key: der, generation: s.cfg.Authority.GenerationOf(pair.Leaf)}
	if _, err := s.cfg.Authority.Verify([]*x509.Certificate{pair.Leaf}, at); err != nil {
		return c, fmt.Errorf("stored certificate is not good for long: %w", err)
	}
	return c, nil
}

// credential takes what is on disk while it is good, else makes a new one, if
// the set can be assembled at all. A set with an end keeps its certificate to
// the end.
func (s *Sets) credential(ctx context.Context, r record) (credential, error) {
	err := vault.Private(s.dirOf(r), 0o700)
	if err == nil {
		err = vault.Private(filepath.Join(s.dirOf(r), credentialFile), 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return credential{}, err // whoever opened it up must look at it first
	}
	c, err := s.stored(r, s.goodAt(r))
	if err == nil || s.expired(r) {
		return c, nil
	}
	s.cfg.Log.InfoContext(ctx, "set gets a new certificate", "set", r.Spec.Name, "err", err)
	issued, err := s.reissue(ctx, r, s.issuer(r))
	if err != nil {
		return c, err
	}
	return issued, nil
}

// issuer is the generation that a set's next certificate is of, unless somebody
// asks for the newest: the set's own while that can issue certificates that are
// good for long. A host name that may not resolve yet is nothing to move to in
// the middle of a night.
func (s *Sets) issuer(r record) int {
	if s.cfg.Authority.EndOf(r.generation()).After(s.cfg.Now().Add(renewBefore)) {
		return r.generation()
	}
	return s.newest()
}

// reissue makes a certificate of a generation, if the set can be assembled with
// that at all.
func (s *Sets) reissue(ctx context.Context, r record, generation int) (credential, error) {
	key := s.cfg.Authority.MachineKeyOf(generation)
	if _, err := s.build(r.in(generation, key), credential{}); err != nil {
		return credential{}, err
	}
	if err := s.stock.Load().CheckKeyType(ipxebuild.KeyType(key), r.Spec.Base); err != nil {
		return credential{}, fmt.Errorf("its authority has certificates with keys of type %s: %w", key, err)
	}
	return s.issue(ctx, r, generation)
}

// goodAt is the time at which a stored certificate must be good to be kept. One
// that lives as long as the authority cannot be replaced by a better one.
func (s *Sets) goodAt(r record) time.Time {
	now := s.cfg.Now()
	if r.Spec.ExpiresAt != nil {
		return now
	}
	at := now.Add(renewBefore)
	if end := s.cfg.Authority.EndOf(s.issuer(r)); at.After(end) && now.Before(end) {
		at = end
	}
	return at
}

// expired reports whether the set's own end is over.
func (s *Sets) expired(r record) bool {
	return r.Spec.ExpiresAt != nil && !s.cfg.Now().Before(*r.Spec.ExpiresAt)
}
