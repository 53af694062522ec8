// Package release describes operating systems as data: where their files lie,
// what boots them and who signs them.
//
// It reads descriptions and fills in channel, architecture and version. It
// fetches nothing and verifies nothing. Begin at System and Ref.
package release

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxDescription is how many bytes a description may have.
const MaxDescription = 64 << 10

// System describes the releases of an operating system. Paths and URLs may hold
// {channel}, {arch} and {version}.
type System struct {
	// Name is the first word of a reference: flatcar.
	Name string `yaml:"name" json:"name"`
	// URL is where the paths below begin. Empty: a mirror or a folder must be
	// named whenever something is fetched.
	URL string `yaml:"url" json:"url"`
	// Channels that exist.
	Channels []string `yaml:"channels" json:"channels"`
	// Archs are the architectures, x86_64 or arm64, each with its name in paths.
	Archs map[string]string `yaml:"archs" json:"archs"`
	// Current says how the version "current" becomes a number. Zero: it cannot.
	Current Current `yaml:"current" json:"current"`
	// Kernel and Initrds are paths; the initrds in the order in which the kernel
	// unpacks them.
	Kernel  string   `yaml:"kernel" json:"kernel"`
	Initrds []string `yaml:"initrds" json:"initrds"`
	// Args are kernel arguments, one word each.
	Args []string `yaml:"args" json:"args"`
	// Signature says what proves that the files are the maker's.
	Signature Signature `yaml:"signature" json:"signature"`
	// Order is how versions are compared: debian (default), or semver, where
	// 1.8.0-beta.1 is before 1.8.0.
	Order string `yaml:"order" json:"order"`
}

// Current finds the newest version in a file, by one of two ways.
type Current struct {
	File    string   `yaml:"file" json:"file"`       // path, or URL of another host
	Pattern string   `yaml:"pattern" json:"pattern"` // regular expression with one group; the highest match counts
	JSON    []string `yaml:"json" json:"json"`       // keys that lead to the version in a JSON document
}

// Kinds of Signature.
const (
	Detached = "openpgp-detached" // one OpenPGP signature beside each file
	Digests  = "openpgp-digests"  // one over a list of digests
	SHA256   = "sha256"           // digests that the operator gives
	None     = "none"             // nothing: pulled only with the operator's explicit word
)

// Signature says what proves that files are the maker's.
type Signature struct {
	Kind string `yaml:"kind" json:"kind"`
	// Suffix of the signature beside each file, for openpgp-detached. Default .sig.
	Suffix string `yaml:"suffix" json:"suffix"`
	// Lists of digests, for openpgp-digests. The first is signed; each further one
	// is signed too, or in one before it.
	Lists []List `yaml:"lists" json:"lists"`
	// Keys is where the public keys lie: a path, or a URL of any host. What it
	// holds is believed only as far as Fingerprints say.
	Keys string `yaml:"keys" json:"keys"`
	// Fingerprints are those of the primary keys whose signatures count, 40
	// hexadecimal digits each (RFC 4880, 12.2) or 64 (RFC 9580).
	Fingerprints []string `yaml:"fingerprints" json:"fingerprints"`
}

// List is a file with digests, as sha256sum and Debian's archive write them.
type List struct {
	File string `yaml:"file" json:"file"`
	// Signature over the list: the path of a detached one, or "inline" for a
	// cleartext signature framework around the list. Empty: a list before it has it.
	Signature string `yaml:"signature" json:"signature"`
	// MustMatch is a line that the list must have. Empty: none. A signature does not
	// say where a list belongs: with it, a mirror cannot show one channel as another.
	MustMatch string `yaml:"must_match" json:"must_match"`
}

// Inline is the Signature of a list that holds its own.
const Inline = "inline"

// Parse reads a description, YAML or JSON, and returns all its faults at once.
func Parse(data []byte) (System, error) {
	var s System
	if len(data) > MaxDescription {
		return s, fmt.Errorf("the description is longer than %d bytes", MaxDescription)
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("read description: %w", err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return s, errors.New("the file holds more than one description")
	}
	if s.Signature.Kind == Detached && s.Signature.Suffix == "" {
		s.Signature.Suffix = ".sig"
	}
	if s.Order == "" {
		s.Order = OrderDebian
	}
	for i, f := range s.Signature.Fingerprints {
		s.Signature.Fingerprints[i] = strings.ToLower(strings.ReplaceAll(f, " ", ""))
	}
	return s, s.validate()
}

var (
	systemName  = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	channelName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,31}$`)
	pathArch    = regexp.MustCompile(`^[a-z0-9_-]{1,32}$`)
	fingerprint = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	fileName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+~_-]{0,127}$`)
	placeholder = regexp.MustCompile(`\{[^}]*\}`)
)

func (s System) validate() error {
	var errs []error
	add := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if !systemName.MatchString(s.Name) {
		add("name: %.40q is not 1 to 32 of a-z, 0-9 and '-'", s.Name)
	}
	if s.URL != "" {
		errs = append(errs, checkURL("url", s.URL))
	}
	if len(s.Channels) == 0 || len(s.Channels) > 64 {
		add("channels: want 1 to 64")
	}
	for _, c := range s.Channels {
		if !channelName.MatchString(c) {
			add("channels: %.40q is not 1 to 32 of a-z, 0-9, '.', '_' and '-'", c)
		}
	}
	if len(s.Archs) == 0 {
		add("archs: want x86_64 or arm64, each with its name in paths")
	}
	for arch, name := range s.Archs {
		if arch != "x86_64" && arch != "arm64" || !pathArch.MatchString(name) {
			add("archs: %.40q: %.40q: want x86_64 or arm64, and a name of a-z, 0-9, '_' and '-'", arch, name)
		}
	}
	if len(s.Initrds) > 16 || len(s.Args) > 64 {
		add("initrds, args: at most 16 and 64")
	}
	for _, p := range append([]string{s.Kernel}, s.Initrds...) {
		errs = append(errs, checkPath("kernel, initrds", p))
		if name := path.Base(placeholder.ReplaceAllString(p, "x")); !fileName.MatchString(name) { // what a depot keeps
			add("kernel, initrds: %.140q is not 1 to 128 of letters, digits, '.', '+', '~', '_' and '-', beginning with a letter or digit", name)
		}
	}
	if s.Order != OrderDebian && s.Order != OrderSemver {
		add("order: %.20q is neither %s nor %s", s.Order, OrderDebian, OrderSemver)
	}
	errs = append(errs, s.Current.validate(), s.Signature.validate())
	return errors.Join(errs...)
}

func (c Current) validate() error {
	switch {
	case c.File == "" && c.Pattern == "" && c.JSON == nil:
		return nil
	case (c.Pattern == "") == (c.JSON == nil):
		return errors.New("current: want either a pattern or json")
	case len(c.JSON) > 16:
		return errors.New("current.json: at most 16 keys")
	}
	// An architecture's name fits wherever the real ones do.
	if re, err := regexp.Compile(placeholder.ReplaceAllString(c.Pattern, "x")); c.Pattern != "" && (err != nil || re.NumSubexp() != 1) {
		return fmt.Errorf("current.pattern: want a regular expression (RE2) with one group: %.200q", c.Pattern)
	}
	return checkPlace("current.file", c.File)
}

func (g Signature) validate() error {
	var errs []error
	add := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	switch g.Kind {
	case Detached, Digests:
		errs = append(errs, checkPlace("signature.keys", g.Keys))
		if len(g.Fingerprints) == 0 || len(g.Fingerprints) > 32 {
			add("signature.fingerprints: want 1 to 32 of primary keys")
		}
		for _, f := range g.Fingerprints {
			if !fingerprint.MatchString(f) {
				add("signature.fingerprints: %.80q is not 40 or 64 hexadecimal digits; a short key id names nobody", f)
			}
		}
	case SHA256, None:
	default:
		add("signature.kind: %.40q is none of %s, %s, %s, %s", g.Kind, Detached, Digests, SHA256, None)
	}
	if g.Kind == Digests && (len(g.Lists) == 0 || len(g.Lists) > 4 || g.Lists[0].Signature == "") {
		add("signature.lists: want 1 to 4, and a signature of the first")
	}
	for i, l := range g.Lists {
		errs = append(errs, checkPath("signature.lists", l.File), checkPlaceholders("signature.lists.must_match", l.MustMatch))
		if l.Signature != Inline && (i == 0 || l.Signature != "") {
			errs = append(errs, checkPath("signature.lists", l.Signature))
		}
	}
	if strings.ContainsAny(g.Suffix, "/\\") {
		add("signature.suffix: %.20q is no suffix", g.Suffix)
	}
	return errors.Join(errs...)
}

// checkPlace accepts a path or a URL.
func checkPlace(field, s string) error {
	if IsURL(s) {
		return checkURL(field, s)
	}
	return checkPath(field, s)
}

// IsURL tells the URL of a file from its path below a mirror.
func IsURL(s string) bool { return strings.Contains(s, "://") }

func checkURL(field, s string) error {
	u, err := url.Parse(placeholder.ReplaceAllString(s, "x"))
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%s: %.200q is not a URL like https://host/path", field, s)
	}
	return checkPlaceholders(field, s)
}

func checkPath(field, s string) error {
	filled := placeholder.ReplaceAllString(s, "x")
	if s == "" || len(s) > 512 || path.IsAbs(filled) || path.Clean(filled) != filled || strings.HasPrefix(filled, "..") || strings.ContainsAny(filled, "\\?#%\x00\n") {
		return fmt.Errorf("%s: %.200q is not a path below the mirror, like {arch}/{version}/vmlinuz", field, s)
	}
	return checkPlaceholders(field, s)
}

func checkPlaceholders(field, s string) error {
	for _, p := range placeholder.FindAllString(s, -1) {
		if !slices.Contains([]string{"{channel}", "{arch}", "{version}"}, p) {
			return fmt.Errorf("%s: %.40q is none of {channel}, {arch}, {version}", field, p)
		}
	}
	return nil
}
