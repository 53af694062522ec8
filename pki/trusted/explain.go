package trusted

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/nestboot/nestboot/pki"
)

// Explain tells what each entry says of chain (as for Verify) and why: first
// those that do not know it, then, rule by rule and in the order in which
// Verify asks, those that do. It ends with the entry that accepts, if one does.
// It remembers nothing and counts no use.
func (t *Trusted) Explain(chain []*x509.Certificate, at time.Time) []pki.Step {
	if len(chain) == 0 {
		return []pki.Step{{Rule: "certificate", Code: pki.CodeNoCertificate, Reason: "none was sent"}}
	}
	all, leaf := t.all.Load(), chain[0]
	claims := all.claims(leaf, chain[1:min(len(chain), 1+maxPresented)])
	steps := all.strangers(claims, leaf)
	for i := range claims {
		more, accepted := claims[i].explain(at)
		if steps = append(steps, more...); accepted {
			return steps
		}
	}
	if len(claims) == 0 {
		steps = append(steps, pki.Step{Rule: "trusted", Code: pki.CodeUnknownCA, Reason: all.stranger(chain)})
	}
	return steps
}

// strangers are the entries that the certificate has nothing to do with.
func (all *catalogue) strangers(claims []claim, leaf *x509.Certificate) []pki.Step {
	known := map[*member]bool{}
	for _, c := range claims {
		known[c.m] = true
	}
	var steps []pki.Step
	for _, m := range all.live {
		if known[m] {
			continue
		}
		step := pki.Step{Rule: m.title(), Code: pki.CodeUnknownCA}
		switch {
		case m.damaged != nil:
			step.Reason = m.damaged.Error()
		case m.spec.Kind == pki.KindCA:
			step.Reason = "no path leads from it to " + nameOf(m.anchors[0])
		case m.spec.Match == MatchKey:
			step.Reason = fmt.Sprintf("its key %x… is another than the pinned %s", short(leaf.RawSubjectPublicKeyInfo), nameOf(m.certs[0]))
		default:
			step.Reason = fmt.Sprintf("its fingerprint %x… is another than that of the pinned %s", short(leaf.Raw), nameOf(m.certs[0]))
		}
		steps = append(steps, step)
	}
	return steps
}

func short(der []byte) []byte {
	sum := sha256.Sum256(der)
	return sum[:8]
}

// explain asks one claim's rules up to the first refusal.
func (c *claim) explain(at time.Time) (steps []pki.Step, accepted bool) {
	steps = append(steps, pki.Step{Rule: c.m.title() + ": path", Reason: c.describe()})
	for _, r := range rules() {
		step := pki.Step{Rule: c.m.title() + ": " + r.name}
		step.Code, step.Reason = r.ask(c, at)
		if step.Code != "" {
			return append(steps, step), false
		}
		if step.Reason = r.accept(c, at); step.Reason != "" {
			steps = append(steps, step)
		}
	}
	return steps, true
}

func (c *claim) describe() string {
	if c.m.spec.Kind == pki.KindPin {
		return "it is pinned by its " + c.m.spec.Match
	}
	if len(c.path) == 1 {
		return "it is registered with this authority itself"
	}
	var names []string
	for _, cert := range c.path[1:] {
		names = append(names, nameOf(cert))
	}
	return "issued by " + strings.Join(names, ", by ")
}
