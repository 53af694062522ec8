package pki

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"
)

// Why a client certificate was refused. The codes are stable: they stand on
// consoles, in events and in the manual.
const (
	CodeNoCertificate = "no-certificate" // none was sent
	CodeUnknownCA     = "unknown-ca"     // not issued by this PKI
	CodeNotYetValid   = "not-yet-valid"  // our clock, or the one at its issue, is wrong
	CodeExpired       = "expired"
	CodeWrongUsage    = "wrong-usage" // ours, but not for a machine
	CodeUnknownSet    = "unknown-set" // ours, but not among the recorded ones
	CodeRevoked       = "revoked"
	CodeNotAllowed    = "not-allowed"   // of a registered authority whose list of names it is not on
	CodeStaleCRL      = "crl-stale"     // the authority's revocation list is missing or too old
	CodeUnknownToken  = "unknown-token" // no URL has this token
)

// Refusal is the error with which Verify turns a certificate down. Identity
// holds what is known: Set only if the certificate is ours, nothing at all for
// CodeNoCertificate.
type Refusal struct {
	Code     string
	Reason   string
	Identity Identity
}

func (r *Refusal) Error() string { return "credential refused (" + r.Code + "): " + r.Reason }

// Verify says who presents chain (leaf first, as in
// tls.ConnectionState.PeerCertificates) at the given time, or returns a
// *Refusal. To be issued by this PKI is necessary but not enough: the
// certificate must be recorded as active. An expired certificate is called
// expired only if it is ours.
//
// It reads memory only, so call it for every request: a certificate may expire
// or be revoked while its connection is open.
func (a *Authority) Verify(chain []*x509.Certificate, at time.Time) (Identity, error) {
	c := claim{chain: chain, at: at}
	for _, r := range a.rules() {
		if code, reason := r.ask(&c); code != "" {
			return Identity{}, &Refusal{Code: code, Reason: reason, Identity: c.id}
		}
	}
	return c.id, nil
}

// Explain tells which rules Verify asks about chain, in its order, up to the
// first that refuses it, and why each answers as it does.
func (a *Authority) Explain(chain []*x509.Certificate, at time.Time) []Step {
	c := claim{chain: chain, at: at}
	var steps []Step
	for _, r := range a.rules() {
		code, reason := r.ask(&c)
		if code == "" {
			reason = r.because(&c)
		}
		steps = append(steps, Step{Rule: r.name, Code: code, Reason: reason})
		if code != "" {
			break
		}
	}
	return steps
}

// claim is a certificate that is asked about, and what the rules have found out.
type claim struct {
	chain []*x509.Certificate
	at    time.Time
	leaf  *x509.Certificate
	gen   *generation // whose root it leads to
	rec   record
	id    Identity
}

// rule is one thing that Verify asks. ask returns the code and reason of a
// refusal, or two empty strings; because says why it did not refuse.
type rule struct {
	name    string
	ask     func(*claim) (code, reason string)
	because func(*claim) string
}

func (a *Authority) rules() [6]rule {
	return [6]rule{
		{"presented", presented, func(c *claim) string { return "a certificate of " + c.leaf.Subject.String() + " was sent" }},
		{"issuer", a.issued, func(c *claim) string {
			return fmt.Sprintf("issued by generation %d of this boot pki (%s)", c.gen.number, c.gen.root.Subject)
		}},
		{"validity", valid, func(c *claim) string {
			return "valid from " + stamp(c.leaf.NotBefore) + " to " + stamp(c.leaf.NotAfter)
		}},
		{"usage", forMachines, func(*claim) string { return "for clients alone (clientAuth)" }},
		{"record", a.recorded, func(c *claim) string { return "recorded as issued to set " + c.id.Set + " at " + stamp(c.rec.Issued) }},
		{"state", active, func(*claim) string { return "neither it nor its generation was ended" }},
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.DateTime) }

func presented(c *claim) (code, reason string) {
	if len(c.chain) == 0 {
		return CodeNoCertificate, "the client sent none"
	}
	c.leaf = c.chain[0]
	c.id = Identity{
		Subject: c.leaf.Subject.CommonName, Fingerprint: sha256.Sum256(c.leaf.Raw), Serial: SerialOf(c.leaf), NotAfter: c.leaf.NotAfter,
	}
	return "", ""
}

// issued builds the chain from our own intermediates and roots, never from what
// the client sent: its work is bounded. It asks as of a time at which the leaf
// is valid, for whether it is ours comes before whether it is expired.
func (a *Authority) issued(c *claim) (code, reason string) {
	at := c.at
	if at.Before(c.leaf.NotBefore) {
		at = c.leaf.NotBefore
	}
	if at.After(c.leaf.NotAfter) {
		at = c.leaf.NotAfter
	}
	gs := a.current.Load()
	gen, known := a.chains.find(gs, c.id.Fingerprint, at)
	if !known {
		found, err := c.leaf.Verify(x509.VerifyOptions{
			Roots: gs.roots, Intermediates: gs.intermediates, CurrentTime: at,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
		if err != nil {
			return CodeUnknownCA, "not issued by this boot pki: " + err.Error()
		}
		gen = gs.below(found[0][len(found[0])-1])
		a.chains.add(gs, c.id.Fingerprint, gen, found[0])
	}
	c.gen = gen
	if set, ok := setOf(c.leaf); ok {
		c.id.Kind, c.id.Name, c.id.Set, c.id.Generation = KindSet, set, set, c.gen.number
	}
	return "", ""
}

func valid(c *claim) (code, reason string) {
	switch {
	case c.at.Before(c.leaf.NotBefore):
		return CodeNotYetValid, "valid from " + stamp(c.leaf.NotBefore)
	case c.at.After(c.leaf.NotAfter):
		return CodeExpired, "expired at " + stamp(c.leaf.NotAfter)
	}
	return "", ""
}

// forMachines demands clientAuth and nothing else.
func forMachines(c *claim) (code, reason string) {
	if len(c.leaf.ExtKeyUsage) == 1 && c.leaf.ExtKeyUsage[0] == x509.ExtKeyUsageClientAuth && len(c.leaf.UnknownExtKeyUsage) == 0 {
		return "", ""
	}
	return CodeWrongUsage, "not issued to a machine"
}

func (a *Authority) recorded(c *claim) (code, reason string) {
	rec, known := a.records.find(c.id.Serial)
	if !known || rec.Fingerprint != c.id.Fingerprint || rec.Set != c.id.Set || rec.generation() != c.gen.number {
		return CodeUnknownSet, "not among the recorded certificates"
	}
	c.rec = rec
	return "", ""
}

func active(c *claim) (code, reason string) {
	if c.rec.State != stateActive {
		return CodeRevoked, "its state is " + c.rec.State
	}
	if c.gen.dropped {
		return CodeRevoked, fmt.Sprintf("generation %d was dropped", c.gen.number)
	}
	return "", ""
}

// Good asks again about a set's certificate that Verify has accepted before, and
// returns a *Refusal if it would not be now. It looks at no signature: the
// fingerprint is the certificate's.
func (a *Authority) Good(id Identity, at time.Time) error {
	rec, known := a.records.find(id.Serial)
	gs := a.current.Load()
	refuse := func(code, reason string) error { return &Refusal{Code: code, Reason: reason, Identity: id} }
	switch {
	case id.Kind != KindSet, !known, rec.Fingerprint != id.Fingerprint:
		return refuse(CodeUnknownSet, "not among the recorded certificates")
	case at.After(rec.NotAfter):
		return refuse(CodeExpired, "expired at "+stamp(rec.NotAfter))
	case rec.State != stateActive:
		return refuse(CodeRevoked, "its state is "+rec.State)
	case gs.numbered(rec.generation()) == nil:
		return refuse(CodeRevoked, fmt.Sprintf("generation %d was dropped", rec.generation()))
	}
	return nil
}
