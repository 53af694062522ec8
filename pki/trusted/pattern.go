package trusted

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of a pattern.
const (
	maxPattern = 256 // bytes
	maxStars   = 8
)

// pattern is one line of an authority's allow list.
type pattern struct {
	text   string
	values func(*x509.Certificate) []string
	parts  []string // what stands between the wildcards
	fold   bool     // without regard to the case of ASCII letters
}

// parsePattern reads CN=…, OU=…, DNS:…, URI:… and EMAIL:….
func parsePattern(text string) (pattern, error) {
	p := pattern{text: text}
	kinds := []struct {
		prefix string
		values func(*x509.Certificate) []string
		fold   bool
	}{
		{"CN=", func(c *x509.Certificate) []string { return attribute(c, 3) }, false},
		{"OU=", func(c *x509.Certificate) []string { return attribute(c, 11) }, false},
		{"DNS:", func(c *x509.Certificate) []string { return c.DNSNames }, true},
		{"URI:", uris, false},
		{"EMAIL:", func(c *x509.Certificate) []string { return c.EmailAddresses }, true},
	}
	for _, k := range kinds {
		rest, ok := strings.CutPrefix(text, k.prefix)
		if !ok {
			continue
		}
		p.values, p.fold = k.values, k.fold
		if p.fold {
			rest = lower(rest)
		}
		p.parts = strings.Split(rest, "*")
		return p, p.check(rest)
	}
	return p, fmt.Errorf("%.60q is no pattern: want CN=…, OU=…, DNS:…, URI:… or EMAIL:…, with * for any characters", text)
}

func (p pattern) check(rest string) error {
	switch {
	case rest == "":
		return fmt.Errorf("pattern %s says nothing: want a value, or * for any", p.text)
	case len(p.text) > maxPattern || len(p.parts) > maxStars+1:
		return fmt.Errorf("pattern %.60q is longer than %d bytes or has more than %d wildcards", p.text, maxPattern, maxStars)
	case !utf8.ValidString(rest) || strings.ContainsFunc(rest, unicode.IsControl):
		return fmt.Errorf("pattern %.60q has characters that no name has", p.text)
	}
	return nil
}

// matches reports whether one of the certificate's values fits.
func (p pattern) matches(c *x509.Certificate) bool {
	for _, v := range p.values(c) {
		if strings.ContainsFunc(v, unicode.IsControl) {
			continue // who reads it elsewhere may see another name
		}
		if p.fold {
			v = lower(v)
		}
		if p.fits(v) {
			return true
		}
	}
	return false
}

// fits takes the first place for each part, which leaves the most for those
// that follow; the last must end the value.
func (p pattern) fits(v string) bool {
	first, last := p.parts[0], p.parts[len(p.parts)-1]
	if len(p.parts) == 1 {
		return v == first
	}
	if len(v) < len(first)+len(last) || !strings.HasPrefix(v, first) || !strings.HasSuffix(v, last) {
		return false
	}
	v = v[len(first) : len(v)-len(last)]
	for _, part := range p.parts[1 : len(p.parts)-1] {
		i := strings.Index(v, part)
		if i < 0 {
			return false
		}
		v = v[i+len(part):]
	}
	return true
}

// attribute lists the values of an attribute of the subject (2.5.4.n): there
// may be several, and pkix.Name keeps one of the common names only.
func attribute(c *x509.Certificate, n int) []string {
	var all []string
	for _, a := range c.Subject.Names {
		if v, ok := a.Value.(string); ok && a.Type.Equal(asn1.ObjectIdentifier{2, 5, 4, n}) {
			all = append(all, v)
		}
	}
	return all
}

func uris(c *x509.Certificate) []string {
	var all []string
	for _, u := range c.URIs {
		all = append(all, u.String())
	}
	return all
}

// lower changes ASCII letters only: others have no case in DNS, and some would
// become ASCII.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r - 'A' + 'a'
		}
		return r
	}, s)
}
