package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/serving"
	"github.com/nestboot/nestboot/pki/vault"
)

// Keys says where the key-encryption key comes from; one setting at most.
type Keys struct {
	// PassphraseFile is the path of a file with a passphrase of at least 12
	// bytes, or with an age identity.
	PassphraseFile string `yaml:"passphrase_file"`
	// Credential is the name of a systemd credential that holds the same.
	Credential string `yaml:"credential"`
	// AgeIdentity is the path of a file made by age-keygen.
	AgeIdentity string `yaml:"age_identity"`
}

// Authority is an authority of the operator's, in one of two forms.
type Authority struct {
	// Certificate is a PEM file: the certificate that issues, those between it
	// and the root, and the root.
	Certificate string `yaml:"certificate"`
	// Key is the PEM file of the key of the first one: RSA, P-256 or P-384.
	Key string `yaml:"key"`
	// StepCA is a step-ca that issues instead.
	StepCA StepCA `yaml:"step_ca"`
}

// StepCA is a step-ca with a JWK provisioner.
type StepCA struct {
	URL          string `yaml:"url"`           // https://ca.example.com
	Root         string `yaml:"root"`          // PEM file of its root
	Provisioner  string `yaml:"provisioner"`   // name
	PasswordFile string `yaml:"password_file"` // of the provisioner's key
}

// Certificate is a server certificate from elsewhere.
type Certificate struct {
	Certificate string `yaml:"certificate"` // PEM file: the server's, then each one's issuer, the root last
	Key         string `yaml:"key"`         // PEM file; may be the same
}

// kek is the key-encryption key in the words of package vault.
func (k Keys) kek() vault.KEK {
	return vault.KEK{PassphraseFile: k.PassphraseFile, Credential: k.Credential, AgeIdentity: k.AgeIdentity}
}

func (a Authority) imported() *pki.Import {
	if a.Certificate == "" {
		return nil
	}
	return &pki.Import{Certificate: a.Certificate, Key: a.Key}
}

func (a Authority) step() *pki.StepCA {
	if a.StepCA == (StepCA{}) {
		return nil
	}
	s := pki.StepCA(a.StepCA)
	return &s
}

func (a Authority) validate() []error {
	var errs []error
	if (a.Certificate == "") != (a.Key == "") {
		errs = append(errs, errors.New("authority: wants both certificate and key, or neither"))
	}
	if a.StepCA == (StepCA{}) {
		return errs
	}
	if a.Certificate != "" || a.Key != "" {
		errs = append(errs, errors.New("authority: both an imported authority and step_ca are set: leave one of them"))
	}
	for _, f := range []struct{ name, value string }{
		{"url", a.StepCA.URL}, {"root", a.StepCA.Root}, {"provisioner", a.StepCA.Provisioner}, {"password_file", a.StepCA.PasswordFile},
	} {
		if f.value == "" {
			errs = append(errs, fmt.Errorf("authority.step_ca.%s: is required", f.name))
		}
	}
	if u, err := url.Parse(a.StepCA.URL); a.StepCA.URL != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil) {
		errs = append(errs, fmt.Errorf("authority.step_ca.url: %q is no address like https://ca.example.com", a.StepCA.URL))
	}
	return errs
}

// serverFiles are the given certificates in the words of package serving.
func serverFiles(list []Certificate) []serving.File {
	var files []serving.File
	for _, c := range list {
		files = append(files, serving.File(c))
	}
	return files
}

// checkKeyFiles reads certificates, keys and secrets that the configuration
// names, and refuses what a start would refuse, as far as that takes neither
// state nor a step-ca.
func checkKeyFiles(cfg Config) error {
	errs := []error{serving.Check(serverFiles(cfg.Certificates), cfg.Domain, time.Now())}
	if i := cfg.Authority.imported(); i != nil {
		errs = append(errs, i.Check())
	}
	if os.Getenv("CREDENTIALS_DIRECTORY") != "" || cfg.Keys.Credential == "" { // systemd shows a credential to the service alone
		err := cfg.Keys.kek().Check()
		if err == nil { // bootd rekey may have gone before
			err = vault.Check(cfg.StateDir, cfg.Keys.kek())
		}
		errs = append(errs, err)
	}
	for _, path := range []string{cfg.Authority.StepCA.Root, cfg.Authority.StepCA.PasswordFile} {
		if path == "" {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("authority.step_ca: %w: put it there, readable for the user that bootd runs as", err))
			continue
		}
		_ = f.Close() // it was not even read
	}
	return errors.Join(errs...)
}
