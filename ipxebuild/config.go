package ipxebuild

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"time"

	"github.com/nestboot/nestboot/boot"
)

// Config says what a set is made of.
type Config struct {
	Name string // of the set: see CheckSetName
	URL  string // https://host[:port] of the name that requests client certificates
	// Root is the SHA-256 of the DER of the root certificate to trust.
	Root [32]byte
	// Cert and Key are the DER of the client certificate and of its private
	// key (PKCS #1, SEC 1 or PKCS #8). Both nil: a keyless set, which carries
	// trust only and whose machines wait for approval.
	Cert, Key []byte
	// KeyType is what Key is expected to be; empty: any that fits.
	KeyType KeyType
	// Base is the version of iPXE; empty: the newest.
	Base string
	// Archs are the architectures wanted; nil: all that the base has.
	Archs   []boot.Arch
	Options Options
	// Now is when the certificate must be good; zero: not looked at.
	Now time.Time
}

var setName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// taken are the beginnings of addresses and file names that mean something
// else: what stock iPXE and our own binaries ask for by themselves, and the
// server's paths.
var taken = regexp.MustCompile(`^(ipxe|artifacts|api|autoexec|[0-9a-f]{8})$`)

// CheckSetName reports whether a name can be a set's: 1 to 32 lower-case
// letters, digits and hyphens, no hyphen at either end, and none of those whose
// files would be taken for something else. It becomes part of a DHCP file name,
// which has 127 bytes.
func CheckSetName(name string) error {
	switch {
	case !setName.MatchString(name):
		return fmt.Errorf("%.60q is not a set name: want 1 to 32 lower-case letters, digits and hyphens, none at the ends", name)
	case taken.MatchString(name):
		return fmt.Errorf("set name %s would make file names that mean something else: choose another", name)
	}
	return nil
}

// checked is a Config that has been looked at.
type checked struct {
	Config
	release *release
	cert    *x509.Certificate // nil: keyless
	key     []byte            // PKCS #1 or SEC 1
}

// check reports all faults of a Config.
func (s *Stock) check(c Config) (checked, error) {
	out := checked{Config: c}
	var errs []error
	host, err := hostOf(c.URL)
	errs = append(errs, CheckSetName(c.Name), err, c.Options.Validate())
	if err == nil && c.Options.Static != nil && !c.Options.Static.DNS.IsValid() && isName(host) {
		errs = append(errs, fmt.Errorf("%s is a name, and static.dns is missing: name a DNS server", host))
	}
	if c.Root == (digest{}) {
		errs = append(errs, errors.New("the fingerprint of the root certificate is missing"))
	}
	out.release, err = s.find(c.Base)
	errs = append(errs, err)
	for _, a := range c.Archs {
		if a != boot.AMD64 && a != boot.ARM64 {
			errs = append(errs, fmt.Errorf("architecture %q: want %s or %s", a, boot.AMD64, boot.ARM64))
		}
	}
	if c.Archs != nil && len(c.Archs) == 0 {
		errs = append(errs, errors.New("the list of architectures is empty: leave it out for all"))
	}
	if len(c.Cert) > 0 || len(c.Key) > 0 || c.KeyType != "" {
		errs = append(errs, s.checkClient(&out))
	}
	if err := errors.Join(errs...); err != nil {
		return checked{}, fmt.Errorf("set %s: %w", c.Name, err)
	}
	return out, nil
}

// checkClient reads certificate and key.
func (s *Stock) checkClient(c *checked) error {
	if len(c.Cert) == 0 || len(c.Key) == 0 {
		return errors.New("a certificate and its key go together: a keyless set has neither, nor a key type")
	}
	cert, err := x509.ParseCertificate(c.Cert)
	if err != nil {
		return fmt.Errorf("client certificate: %w", err)
	}
	signer, err := parseKey(c.Key)
	if err != nil {
		return err
	}
	if err := CheckClient(cert, signer, c.Now); err != nil {
		return err
	}
	k, err := clientKeyType(cert)
	if err != nil {
		return err
	}
	if c.KeyType != "" && c.KeyType != k {
		return fmt.Errorf("the key is of type %s instead of %s", k, c.KeyType)
	}
	if c.release != nil {
		if err := s.CheckKeyType(k, c.release.version); err != nil {
			return err
		}
	}
	c.cert = cert
	c.key, err = MarshalKey(signer)
	return err
}

// wants reports whether the set is for machines of the architecture.
func (c Config) wants(a boot.Arch) bool { return c.Archs == nil || slices.Contains(c.Archs, a) }

// isName reports whether a URL's host, maybe with its port, is a DNS name.
func isName(host string) bool {
	u := url.URL{Host: host}
	_, err := netip.ParseAddr(u.Hostname())
	return err != nil
}
