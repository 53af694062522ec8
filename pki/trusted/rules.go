package trusted

import (
	"fmt"
	"time"

	"github.com/nestboot/nestboot/pki"
)

// rule is one question about a claim. ask answers with the code of a refusal
// or none; accept says why there is none, empty where the rule does not apply.
type rule struct {
	name   string
	ask    func(c *claim, at time.Time) (code, reason string)
	accept func(c *claim, at time.Time) string
}

// rules are asked in this order, and the first refusal counts.
func rules() [5]rule {
	return [...]rule{
		{"registration", (*claim).askEntry, func(c *claim, _ time.Time) string { return "registered" + until(c.m.spec.ExpiresAt) }},
		{"validity", (*claim).askValidity, func(c *claim, _ time.Time) string { return "valid until " + stamp(c.id.NotAfter) }},
		{"usage", (*claim).askUsage, func(*claim, time.Time) string {
			return "for TLS clients, and within the constraints of those who issued it"
		}},
		{"crl", (*claim).askCRL, (*claim).acceptCRL},
		{"allow", (*claim).askAllow, (*claim).acceptAllow},
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.DateTime) }

func until(end *time.Time) string {
	if end == nil {
		return ""
	}
	return " until " + stamp(*end)
}

// judge returns the refusal and how many rules had accepted before.
func (c *claim) judge(at time.Time) (accepted int, code, reason string) {
	all := rules()
	for i := range all {
		if code, reason = all[i].ask(c, at); code != "" {
			return i, code, reason
		}
	}
	return len(all), "", ""
}

func (c *claim) askEntry(at time.Time) (code, reason string) {
	switch e := c.m.spec.ExpiresAt; {
	case !c.removed.IsZero():
		return pki.CodeRevoked, c.m.title() + " was removed at " + stamp(c.removed)
	case e != nil && at.After(*e):
		return pki.CodeExpired, c.m.title() + " was registered until " + stamp(*e)
	}
	return "", ""
}

func (c *claim) askValidity(at time.Time) (code, reason string) {
	for i, cert := range c.path {
		if at.Before(cert.NotBefore) {
			return pki.CodeNotYetValid, who(c.id, i) + " valid from " + stamp(cert.NotBefore)
		}
		if at.After(cert.NotAfter) {
			return pki.CodeExpired, who(c.id, i) + " valid until " + stamp(cert.NotAfter)
		}
	}
	return "", ""
}

// who is what reasons call certificate i of the path.
func who(id pki.Identity, i int) string {
	if i == 0 {
		return "it is"
	}
	return id.Path[i-1].By + ", which issued it, is"
}

func (c *claim) askUsage(time.Time) (code, reason string) { return c.code, c.reason }

func (c *claim) askCRL(at time.Time) (code, reason string) {
	if c.m.spec.CRL == nil {
		return "", ""
	}
	return c.m.askLists(c.id, at)
}

func (c *claim) acceptCRL(at time.Time) string {
	if c.m.spec.CRL == nil {
		return ""
	}
	l, ok := (*c.m.lists.Load())[c.id.Path[0].Issuer]
	switch {
	case !ok:
		return "there is no list of its issuer, and the entry accepts that"
	case l.stale(at):
		return "not on the list, which ended at " + stamp(l.next) + ", and the entry accepts that"
	}
	return "not on the list of " + stamp(l.this)
}

func (c *claim) askAllow(time.Time) (code, reason string) {
	if len(c.m.allow) == 0 || c.allowed != "" {
		return "", ""
	}
	return pki.CodeNotAllowed, fmt.Sprintf("its names (%.120q) match none of the %d allowed patterns of %s", c.id.Subject, len(c.m.allow), c.m.title())
}

func (c *claim) acceptAllow(time.Time) string {
	if c.m.spec.Kind != pki.KindCA {
		return ""
	}
	if c.allowed != "" {
		return "allowed by " + c.allowed
	}
	return "every certificate of this authority is allowed"
}
