package trusted

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// What the x509 package leaves out of name constraints (RFC 5280, 4.2.1.10):
// common names, by which an allow-list may let machines in, and forms that it
// does not know, which it overlooks unless they are marked as critical.

// constraints is the extension 2.5.29.30, whose form x509 has checked.
type constraints struct {
	Permitted []subtree `asn1:"optional,tag:0"`
	Excluded  []subtree `asn1:"optional,tag:1"`
}

type subtree struct {
	Base    asn1.RawValue
	Minimum int `asn1:"optional,tag:0"`
	Maximum int `asn1:"optional,tag:1"`
}

// The forms of names that x509 evaluates: email, DNS, URI, IP address.
var evaluated = [...]int{1, 2, 6, 7}

// checkConstraints refuses an authority some of whose constraints would not
// hold with us.
func checkConstraints(c *x509.Certificate) error {
	for _, x := range c.Extensions {
		if !x.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 30}) {
			continue
		}
		var all constraints
		if _, err := asn1.Unmarshal(x.Value, &all); err != nil {
			return fmt.Errorf("has name constraints that are not understood: %w", err)
		}
		for _, s := range slices.Concat(all.Permitted, all.Excluded) {
			if !slices.Contains(evaluated[:], s.Base.Tag) {
				return fmt.Errorf("has name constraints of a form that is not understood (%d): want DNS, email, URI or IP", s.Base.Tag)
			}
		}
	}
	return nil
}

// hostName is what a common name looks like that stands for a host.
var hostName = regexp.MustCompile(`^[a-z0-9_-]+(\.[a-z0-9_-]+)+$`)

// outsideOf returns a common name of leaf that is a host's and that issuer may
// not vouch for, or nothing. OpenSSL asks so too, if there is no other name.
func outsideOf(issuer, leaf *x509.Certificate) string {
	for _, cn := range attribute(leaf, 3) {
		name := lower(cn)
		within := func(domain string) bool {
			domain = lower(domain)
			return domain == "" || name == domain || strings.HasSuffix(name, "."+strings.TrimPrefix(domain, "."))
		}
		if !hostName.MatchString(name) {
			continue
		}
		if slices.ContainsFunc(issuer.ExcludedDNSDomains, within) || len(issuer.PermittedDNSDomains) > 0 && !slices.ContainsFunc(issuer.PermittedDNSDomains, within) {
			return cn
		}
	}
	return ""
}
