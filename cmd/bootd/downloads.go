package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/nestboot/nestboot/images/fetch"
	"github.com/nestboot/nestboot/images/release"
)

// Downloads says how releases get here.
type Downloads struct {
	// Proxy is the URL of a forward proxy, http://host:port. Default: HTTPS_PROXY,
	// HTTP_PROXY and NO_PROXY of the environment.
	Proxy string `yaml:"proxy"`
	// CA is a file with certificates, in PEM, that mirrors may have beside those
	// that the system trusts.
	CA string `yaml:"ca"`
	// Mirrors are URLs at which a mirror may have a private or a loopback address.
	// Others may only have public ones. Default: none.
	Mirrors []string `yaml:"mirrors"`
	// Systems are files that describe further operating systems.
	Systems []string `yaml:"systems"`
	// BundleKeys are fingerprints of the installations whose bundles nestctl image
	// import takes, as nestctl image export prints them. Default: its own alone.
	BundleKeys []string `yaml:"bundle_keys"`
}

func (d Downloads) validate() []error {
	var errs []error
	for i, k := range d.BundleKeys {
		if raw, err := hex.DecodeString(k); err != nil || len(raw) != 32 {
			errs = append(errs, fmt.Errorf("downloads.bundle_keys[%d]: %.80q is not 64 hexadecimal digits", i, k))
		}
	}
	// The file with certificates is read when bootd starts.
	if _, err := fetch.NewClient(fetch.Config{Proxy: d.Proxy, Mirrors: d.Mirrors}); err != nil {
		errs = append(errs, fmt.Errorf("downloads.%w", err))
	}
	return errs
}

// validateSource checks that an image is either a release or files.
func (i Image) validateSource(at string) error {
	switch {
	case i.Release == "" && i.Kernel == "":
		return fmt.Errorf("%s: wants a release, like flatcar:stable:4230.2.0, or a kernel", at)
	case i.Release == "":
		return nil
	case i.Kernel != "" || len(i.Initrds) > 0:
		return fmt.Errorf("%s.release: goes without kernel and initrds", at)
	}
	r, err := i.ref()
	if err != nil {
		return fmt.Errorf("%s.release: %w", at, err)
	}
	if r.Version == release.CurrentVersion {
		return errors.New(at + ".release: name a version: what is current changes, and machines would change with it (nestctl image pull prints it)")
	}
	return nil
}

// ref is the release that an image names.
func (i Image) ref() (release.Ref, error) { return release.ParseRef(i.Release, string(i.Arch)) }

// namesReleases reports whether an image is a release.
func (c Config) namesReleases() bool {
	return slices.ContainsFunc(c.Images, func(i Image) bool { return i.Release != "" })
}
