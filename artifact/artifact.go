// Package artifact keeps an artifact set: its client certificate on disk, its
// files in memory, and what may leave over which protocol.
//
// The bytes are made by package ipxebuild, the certificate by package pki;
// this package decides nothing about machines. Begin at Open.
package artifact

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/google/renameio/v2"

	"github.com/nestboot/nestboot/ipxebuild"
	"github.com/nestboot/nestboot/pki"
)

// renewBefore is how long before its end a set's certificate is replaced. The
// set's files are fetched anew at each boot, so machines pick it up by
// themselves.
const renewBefore = 30 * 24 * time.Hour

// checkEvery is how often a running set looks at the clock.
const checkEvery = time.Hour

// baseNames are the stock binaries that a set is made of.
var baseNames = []string{"snponly.efi", "ipxe-amd64.efi"}

// Config says how a set is made.
type Config struct {
	Name string // of the set
	Dir  string // where its certificate, key and files are kept; made with mode 0700
	URL  string // https://host[:port] of the name that requests client certificates
	Log  *slog.Logger
	Now  func() time.Time
}

// File is one file of the set.
type File struct {
	Data     []byte
	SHA256   string // hexadecimal
	HoldsKey bool
}

// Set is an artifact set that is ready to be served.
type Set struct {
	Name  string
	cfg   Config
	bases []ipxebuild.Base
	ca    *pki.Authority

	files atomic.Pointer[map[string]File]
	renew atomic.Pointer[time.Time] // when its certificate is due
}

// ReadBases reads and checks the stock binaries in dir. The error of a missing
// or unfit one names the package that has it.
func ReadBases(dir string) ([]ipxebuild.Base, error) {
	var bases []ipxebuild.Base
	var errs []error
	for _, name := range baseNames {
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s does not exist: install Debian's package ipxe 1.21.1 or newer, or set artifacts.ipxe_dir", path)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		b, err := ipxebuild.ReadBase(name, data)
		if err != nil {
			errs = append(errs, fmt.Errorf("in %s: %w", dir, err))
			continue
		}
		bases = append(bases, b)
	}
	return bases, errors.Join(errs...)
}

// Open makes the set from its bases. Its client certificate is issued on the
// first start and again before it ends, and kept in between.
func Open(ctx context.Context, cfg Config, bases []ipxebuild.Base, ca *pki.Authority) (*Set, error) {
	if err := ipxebuild.CheckSetName(cfg.Name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("set %s: %w", cfg.Name, err)
	}
	st, err := os.Lstat(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("set %s: %w", cfg.Name, err)
	}
	if !st.IsDir() || st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("set %s: %s would hold a private key and is open to others or not a folder: make it one with chmod 0700", cfg.Name, cfg.Dir)
	}
	s := &Set{Name: cfg.Name, cfg: cfg, bases: bases, ca: ca}
	if err := s.make(ctx); err != nil {
		return nil, fmt.Errorf("set %s: %w", cfg.Name, err)
	}
	return s, nil
}

// Run replaces the certificate when it is due, until ctx ends. While that
// fails, the former one is served and it is tried again.
func (s *Set) Run(ctx context.Context) error {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := s.renewIfDue(ctx); err != nil {
				s.cfg.Log.ErrorContext(ctx, "set was not renewed; trying again", "set", s.Name, "err", err)
			}
		}
	}
}

func (s *Set) renewIfDue(ctx context.Context) error {
	if s.cfg.Now().Before(*s.renew.Load()) {
		return nil
	}
	return s.make(ctx)
}

// make gets a certificate that is good, renders the files and puts them in
// place of the former ones.
func (s *Set) make(ctx context.Context) error {
	c, err := s.cfg.credential(ctx, s.ca)
	if err != nil {
		return err
	}
	script, err := ipxebuild.Script(ipxebuild.ScriptConfig{Set: s.Name, Base: s.cfg.URL, Cert: c.cert.Raw, Key: c.key})
	if err != nil {
		return err
	}
	laid, err := ipxebuild.Layout(s.Name, s.bases, s.ca.RootFingerprint(), script)
	if err != nil {
		return err
	}
	files := map[string]File{}
	for _, f := range laid {
		sum := sha256.Sum256(f.Data)
		files[f.Name] = File{Data: f.Data, SHA256: hex.EncodeToString(sum[:]), HoldsKey: f.HoldsKey}
		if err := renameio.WriteFile(filepath.Join(s.cfg.Dir, filepath.Base(f.Name)), f.Data, 0o600, renameio.WithTempDir(s.cfg.Dir)); err != nil {
			return fmt.Errorf("write %s: %w", f.Name, err)
		}
	}
	due := c.cert.NotAfter.Add(-renewBefore)
	s.files.Store(&files)
	s.renew.Store(&due)
	return nil
}

// File looks a file up by the name under which it is asked for: "<set>/<file>".
// The script is also found without its folder, because iPXE that OVMF loaded by
// PXE asks for it so, whatever folder it came from itself (seen with snponly.efi
// 1.21.1+git20250501 under OVMF 2022.11; by HTTP it does name the folder).
func (s *Set) File(name string) (File, bool) {
	if name == ipxebuild.ScriptName {
		name = s.Name + "/" + name
	}
	f, ok := (*s.files.Load())[name]
	return f, ok
}

// credential is a set's certificate and its key as DER.
type credential struct {
	cert *x509.Certificate
	key  []byte
}

// credential takes what is on disk while it is good, else makes a new one.
func (cfg Config) credential(ctx context.Context, ca *pki.Authority) (credential, error) {
	path := filepath.Join(cfg.Dir, "client.pem") // certificate and key in one file, so that they change together
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		cfg.Log.InfoContext(ctx, "set gets its first certificate", "set", cfg.Name)
	case err != nil:
		return credential{}, fmt.Errorf("read certificate: %w", err)
	default:
		c, err := readCredential(data, ca, cfg.Now().Add(renewBefore))
		if err == nil {
			return c, nil
		}
		cfg.Log.WarnContext(ctx, "set gets a new certificate", "set", cfg.Name, "err", err)
	}
	issued, err := ca.IssueMachine(ctx, cfg.Name, 0)
	if err != nil {
		return credential{}, fmt.Errorf("issue certificate: %w", err)
	}
	c := credential{cert: issued.Certificate, key: x509.MarshalPKCS1PrivateKey(issued.Key)}
	out := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw}),
		pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: c.key})...)
	if err := renameio.WriteFile(path, out, 0o600, renameio.WithTempDir(cfg.Dir)); err != nil {
		return credential{}, fmt.Errorf("write certificate: %w", err)
	}
	return c, nil
}

// readCredential reads what credential wrote, and says why it is no longer
// good at the given time.
func readCredential(data []byte, ca *pki.Authority, at time.Time) (credential, error) {
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return credential{}, fmt.Errorf("stored certificate is damaged: %w", err)
	}
	if _, err := ca.Verify([]*x509.Certificate{pair.Leaf}, at); err != nil {
		return credential{}, fmt.Errorf("stored certificate is not good for long: %w", err)
	}
	key, ok := pair.PrivateKey.(*rsa.PrivateKey)
	if !ok {
		return credential{}, errors.New("stored certificate has no RSA key")
	}
	return credential{cert: pair.Leaf, key: x509.MarshalPKCS1PrivateKey(key)}, nil
}
