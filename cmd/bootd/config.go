package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/images"
)

// Config is bootd's one configuration file. These comments are its manual;
// docs/bootd.yaml shows every field. Relative paths start at the directory of
// the file.
type Config struct {
	// Domain is where the host names live: boot.<domain> and ipxe.<domain>
	// must both resolve to this server. Required.
	Domain string `yaml:"domain"`
	// Addresses of this server that go into its certificate, for clients that
	// have no DNS. Default: none.
	Addresses []netip.Addr `yaml:"addresses"`
	// StateDir holds keys, certificates and the store; mode 0700, owned by the
	// user that bootd runs as. Default: /var/lib/nestboot.
	StateDir string `yaml:"state_dir"`
	// Reserve is how many MiB must stay free in the file system of StateDir;
	// below it nothing more is written, and boots go on from memory.
	// Default: 64.
	Reserve int64 `yaml:"reserve_mib"`
	// Keys says with what private files are encrypted. Default: they are not.
	Keys Keys `yaml:"keys"`
	// Authority is who issues certificates. Default: bootd's own, made at the
	// first start.
	Authority Authority `yaml:"authority"`
	// Certificates are shown to clients instead of the authority's, for the host
	// names that they cover; read again when they change. Default: none.
	Certificates []Certificate `yaml:"certificates"`
	// Listen says where bootd can be reached.
	Listen Listen `yaml:"listen"`
	// TFTP says who is answered by TFTP, and how.
	TFTP TFTP `yaml:"tftp"`
	// HTTP shares files out among machines.
	HTTP HTTP `yaml:"http"`
	// Artifacts says what the boot files of machines are made of.
	Artifacts Artifacts `yaml:"artifacts"`
	// Images are the operating systems that can be booted.
	Images []Image `yaml:"images"`
	// Downloads says how nestctl image pull gets releases.
	Downloads Downloads `yaml:"downloads"`
	// DefaultImage is the name of the image for machines that name none.
	// Default: the only image, when there is just one.
	DefaultImage string `yaml:"default_image"`
	// Butane is the file that becomes every machine's Ignition config:
	// variant flatcar, version 1.0.0 or 1.1.0. Required when there are images.
	Butane string `yaml:"butane"`
	// Machines are those that differ from the defaults.
	Machines []Machine `yaml:"machines"`
	// Log says what is logged, and how.
	Log Log `yaml:"log"`
	// Grace is how many seconds running transfers may go on after a stop is
	// asked for, 1 to 3600. Default: 30.
	Grace int `yaml:"grace_seconds"`
}

// Listen holds addresses as host:port. An empty host is every address.
type Listen struct {
	TFTP    string `yaml:"tftp"`    // default ":69"
	HTTP    string `yaml:"http"`    // default ":80"
	HTTPS   string `yaml:"https"`   // default ":443"
	Metrics string `yaml:"metrics"` // default "127.0.0.1:9090"; must be a loopback address
	Admin   string `yaml:"admin"`   // path of the Unix socket; default <state_dir>/admin.sock
	// LegacyHTTPS serves files of sets to firmware that knows nothing better than
	// RSA key exchange, which has no forward secrecy (OVMF 2022.11). Default "":
	// off.
	LegacyHTTPS string `yaml:"legacy_https"`
}

// Artifacts describes what artifact sets are made of. The sets themselves are
// made and exposed by nestctl artifact.
type Artifacts struct {
	// Bases are .deb files, or folders, of stock iPXE and syslinux. What they
	// hold is copied into the state directory at the start and at SIGHUP, and
	// stays there, several versions side by side. Default: /usr/lib/ipxe,
	// /usr/lib/PXELINUX, /usr/lib/ISOLINUX and /usr/lib/syslinux/modules/bios,
	// as far as Debian's packages have filled them; one that cannot be read is
	// left out with a warning, while a configured one ends the start.
	Bases []string `yaml:"bases"`
}

// Image is an operating system: a release, or files on local disk.
type Image struct {
	Name string    `yaml:"name"`
	Arch boot.Arch `yaml:"arch"` // x86_64 or arm64; default x86_64
	// Release is one that nestctl image pull or import has brought, like
	// flatcar:stable:4230.2.0. Until it is here, machines wait.
	Release string `yaml:"release"`
	// Kernel and Initrds are files, instead of a release.
	Kernel  string   `yaml:"kernel"`
	Initrds []string `yaml:"initrds"`
	// Args are kernel arguments, one word each, after those of the release. Flatcar
	// needs flatcar.first_boot=1 to run Ignition, which its releases bring along.
	Args []string `yaml:"args"`
}

// Machine is one machine's own settings.
type Machine struct {
	UUID   string      `yaml:"uuid"`
	Name   string      `yaml:"name"`   // host name; default m-<mac>
	Policy boot.Policy `yaml:"policy"` // boot (default), wait, local or refuse
	Image  string      `yaml:"image"`  // default: default_image
}

// Log says what is logged to standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info (default), warn or error
	Format string `yaml:"format"` // text (default) or json
}

// withDefaults fills in what was left out; dir is where relative paths start.
func (c Config) withDefaults(dir string) Config {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&c.StateDir, "/var/lib/nestboot")
	def(&c.Listen.TFTP, ":69")
	def(&c.Listen.HTTP, ":80")
	def(&c.Listen.HTTPS, ":443")
	def(&c.Listen.Metrics, "127.0.0.1:9090")
	def(&c.Log.Level, "info")
	def(&c.Log.Format, "text")
	if c.HTTP.MinRate == "" {
		c.HTTP.MinRate = "32k"
	}
	if c.HTTP.MaxBooting == 0 {
		c.HTTP.MaxBooting = 500
	}
	if c.Grace == 0 {
		c.Grace = 30
	}
	if c.Reserve == 0 {
		c.Reserve = 64
	}
	if c.DefaultImage == "" && len(c.Images) == 1 {
		c.DefaultImage = c.Images[0].Name
	}
	c.resolvePaths(dir)
	def(&c.Listen.Admin, filepath.Join(c.StateDir, "admin.sock"))
	return c
}

func (c *Config) resolvePaths(dir string) {
	abs := func(s *string) {
		if *s != "" && !filepath.IsAbs(*s) {
			*s = filepath.Join(dir, *s)
		}
	}
	abs(&c.StateDir)
	c.Artifacts.Bases = slices.Clone(c.Artifacts.Bases)
	for i := range c.Artifacts.Bases {
		abs(&c.Artifacts.Bases[i])
	}
	abs(&c.Butane)
	for _, path := range []*string{
		&c.Keys.PassphraseFile, &c.Keys.AgeIdentity, &c.Authority.Certificate, &c.Authority.Key,
		&c.Authority.StepCA.Root, &c.Authority.StepCA.PasswordFile,
	} {
		abs(path)
	}
	c.Certificates = slices.Clone(c.Certificates)
	for i := range c.Certificates {
		abs(&c.Certificates[i].Certificate)
		abs(&c.Certificates[i].Key)
	}
	abs(&c.Listen.Admin)
	abs(&c.Downloads.CA)
	c.Downloads.Systems = slices.Clone(c.Downloads.Systems)
	for i := range c.Downloads.Systems {
		abs(&c.Downloads.Systems[i])
	}
	c.Images = slices.Clone(c.Images)
	for i := range c.Images {
		img := &c.Images[i]
		if img.Arch == "" {
			img.Arch = boot.AMD64
		}
		abs(&img.Kernel)
		img.Initrds = slices.Clone(img.Initrds)
		for j := range img.Initrds {
			abs(&img.Initrds[j])
		}
	}
}

// Validate returns everything that is wrong with the values. It opens nothing.
func (c Config) Validate() error {
	var errs []error
	add := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if !domainName.MatchString(c.Domain) || len(c.Domain) > 200 {
		add("domain: %q is not a domain name; want one like example.com: machines ask boot.example.com and ipxe.example.com", c.Domain)
	}
	if slices.Contains(c.Artifacts.Bases, "") {
		add("artifacts.bases: a path is empty")
	}
	if c.Grace < 1 || c.Grace > 3600 {
		add("grace_seconds: %d is not between 1 and 3600", c.Grace)
	}
	if c.Reserve < 1 || c.Reserve > maxReserve {
		add("reserve_mib: %d is not between 1 and %d", c.Reserve, maxReserve)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		add("log.level: %q is none of debug, info, warn, error", c.Log.Level)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		add("log.format: %q is neither text nor json", c.Log.Format)
	}
	errs = append(errs, c.Keys.kek().Validate())
	errs = append(errs, c.Authority.validate()...)
	for i, f := range c.Certificates {
		if f.Certificate == "" || f.Key == "" {
			add("certificates[%d]: wants both certificate and key; they may be the same file", i)
		}
	}
	errs = append(errs, c.Listen.validate()...)
	errs = append(errs, c.Downloads.validate()...)
	errs = append(errs, c.TFTP.validate()...)
	errs = append(errs, c.HTTP.validate()...)
	errs = append(errs, c.validateImages()...)
	errs = append(errs, c.validateMachines()...)
	return errors.Join(errs...)
}

// maxReserve is one TiB: more is a slip of the finger.
const maxReserve = 1 << 20

var domainName = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (l Listen) validate() []error {
	var errs []error
	taken := map[string]string{}
	for _, a := range []struct{ field, value string }{
		{"listen.tftp", l.TFTP},
		{"listen.http", l.HTTP},
		{"listen.https", l.HTTPS},
		{"listen.legacy_https", l.LegacyHTTPS},
		{"listen.metrics", l.Metrics},
	} {
		if a.field == "listen.legacy_https" && a.value == "" {
			continue
		}
		host, port, err := net.SplitHostPort(a.value)
		number, portErr := strconv.ParseUint(port, 10, 16)
		ip := net.ParseIP(host)
		switch {
		case err != nil, portErr != nil, number == 0:
			errs = append(errs, fmt.Errorf("%s: %q is not host:port, like 192.0.2.10:69 or :69", a.field, a.value))
		case a.field == "listen.metrics" && !ip.IsLoopback():
			errs = append(errs, fmt.Errorf("listen.metrics: %q is not a loopback address; metrics and profiles are not for the network (use 127.0.0.1)", host))
		case host != "" && ip == nil:
			errs = append(errs, fmt.Errorf("%s: %q is not an IP address; leave it empty for every address", a.field, host))
		case a.field != "listen.tftp" && taken[a.value] != "":
			errs = append(errs, fmt.Errorf("%s: %q is the address of %s too", a.field, a.value, taken[a.value]))
		case a.field != "listen.tftp": // UDP has ports of its own
			taken[a.value] = a.field
		}
	}
	if len(l.Admin) > maxSocketPath {
		errs = append(errs, tooLong(l.Admin))
	}
	return errs
}

func (c Config) validateImages() []error {
	var errs []error
	seen := map[string]bool{}
	for i, img := range c.Images {
		at := fmt.Sprintf("images[%d]", i)
		if err := images.CheckName(img.Name); err != nil {
			errs = append(errs, fmt.Errorf("%s.name: %w", at, err))
		}
		if seen[img.Name] {
			errs = append(errs, fmt.Errorf("%s.name: image %s is there twice", at, img.Name))
		}
		seen[img.Name] = true
		errs = append(errs, img.validateSource(at))
		if img.Arch != boot.AMD64 && img.Arch != boot.ARM64 {
			errs = append(errs, fmt.Errorf("%s.arch: %q is neither x86_64 nor arm64", at, img.Arch))
		}
		for _, a := range img.Args {
			if _, err := boot.KernelArg(a); err != nil {
				errs = append(errs, fmt.Errorf("%s.args: %w", at, err))
			}
		}
	}
	if c.DefaultImage != "" && !seen[c.DefaultImage] {
		errs = append(errs, fmt.Errorf("default_image: there is no image %q", c.DefaultImage))
	}
	if len(c.Images) > 0 && c.Butane == "" {
		errs = append(errs, errors.New("butane: is required when there are images"))
	}
	return errs
}

func (c Config) validateMachines() []error {
	var errs []error
	seen := map[string]bool{}
	for i, m := range c.Machines {
		at := fmt.Sprintf("machines[%d]", i)
		id, err := boot.ParseUUID(m.UUID)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s.uuid: %w", at, err))
		} else if seen[id] {
			errs = append(errs, fmt.Errorf("%s.uuid: machine %s is there twice", at, id))
		}
		seen[id] = true
		if m.Name != "" && (!domainName.MatchString(m.Name) || len(m.Name) > 64) {
			errs = append(errs, fmt.Errorf("%s.name: %q is not a host name of at most 64 characters", at, m.Name))
		}
		if !m.Policy.Valid() {
			errs = append(errs, fmt.Errorf("%s.policy: %q is none of boot, wait, local, refuse", at, m.Policy))
		}
		if m.Image != "" && !slices.ContainsFunc(c.Images, func(i Image) bool { return i.Name == m.Image }) {
			errs = append(errs, fmt.Errorf("%s.image: there is no image %q", at, m.Image))
		}
	}
	return errs
}
