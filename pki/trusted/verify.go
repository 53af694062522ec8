package trusted

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"github.com/nestboot/nestboot/pki"
)

// Verify says who presents chain (leaf first, as in
// tls.ConnectionState.PeerCertificates) at the given time, or returns a
// *pki.Refusal. Pins are asked before authorities, and both in the order of
// their numbers; the first that accepts is the answer. Of several refusals it
// returns the one that came closest to acceptance.
//
// A pin stands for itself: who issued it, and whether they revoked it, is not
// asked. Paths of an authority lead over what is registered with it and over
// the first four intermediates that the client sent. The identity ends when
// the first certificate of its path, or the entry, does.
//
// It reads memory only, so call it for every request.
func (t *Trusted) Verify(chain []*x509.Certificate, at time.Time) (pki.Identity, error) {
	if len(chain) == 0 {
		return pki.Identity{}, &pki.Refusal{Code: pki.CodeNoCertificate, Reason: "the client sent none"}
	}
	fingerprint := pki.Digest(sha256.Sum256(chain[0].Raw))
	claims := t.prove(chain, fingerprint)
	var closest *claim
	refusal := &pki.Refusal{}
	most := -1
	for i := range claims {
		c := &claims[i]
		accepted, code, reason := c.judge(at)
		if code == "" {
			return c.id, nil
		}
		if accepted > most {
			most, closest = accepted, c
			refusal.Code, refusal.Reason = code, reason
		}
	}
	if closest == nil {
		refusal.Identity = identityOf(chain[0])
		refusal.Code, refusal.Reason = pki.CodeUnknownCA, t.all.Load().stranger(chain)
		return pki.Identity{}, refusal
	}
	refusal.Identity = closest.id
	return pki.Identity{}, refusal
}

// prove returns the claims of a chain, from memory if they are known. Only what
// an authority of ours has signed is remembered: whoever holds a pinned key makes
// certificates with it without end, and a pin costs no signature.
func (t *Trusted) prove(chain []*x509.Certificate, fingerprint pki.Digest) []claim {
	all, presented := t.all.Load(), chain[1:min(len(chain), 1+maxPresented)]
	sent := digestOf(presented)
	if p := t.proofs.get(fingerprint); p != nil && p.all == all && p.presented == sent {
		return p.claims
	}
	claims := all.claims(chain[0], presented)
	if slices.ContainsFunc(claims, func(c claim) bool { return c.removed.IsZero() && c.m.spec.Kind == pki.KindCA }) {
		t.proofs.put(fingerprint, &proof{all: all, presented: sent, claims: claims})
	}
	return claims
}

func identityOf(leaf *x509.Certificate) pki.Identity {
	return pki.Identity{Subject: subjectOf(leaf), Fingerprint: sha256.Sum256(leaf.Raw), Serial: pki.SerialOf(leaf), NotAfter: leaf.NotAfter}
}

// maxSubject bounds what events and logs say about a foreign certificate.
const maxSubject = 200

// subjectOf is what a certificate calls itself: its common name, or else the
// first of its other names.
func subjectOf(leaf *x509.Certificate) string {
	var name string
	for _, names := range [][]string{{leaf.Subject.CommonName}, leaf.DNSNames, uris(leaf), leaf.EmailAddresses, {leaf.Subject.String()}} {
		if name == "" && len(names) > 0 {
			name = names[0]
		}
	}
	return strings.ToValidUTF8(name[:min(len(name), maxSubject)], "")
}

// Good says whether an identity that Verify returned is still accepted at the
// given time, or returns a *pki.Refusal. It checks no signature: ask it for
// every open connection whenever Changed fires.
func (t *Trusted) Good(id pki.Identity, at time.Time) error {
	if code, reason := t.refuse(id, at); code != "" {
		return &pki.Refusal{Code: code, Reason: reason, Identity: id}
	}
	return nil
}

func (t *Trusted) refuse(id pki.Identity, at time.Time) (code, reason string) {
	all := t.all.Load()
	m := all.number(id.ID)
	switch {
	case m == nil || m.spec.Kind != id.Kind:
		return pki.CodeRevoked, all.epitaph(id)
	case !id.NotAfter.IsZero() && at.After(id.NotAfter):
		return pki.CodeExpired, "it ended at " + stamp(id.NotAfter)
	case m.spec.ExpiresAt != nil && at.After(*m.spec.ExpiresAt):
		return pki.CodeExpired, m.title() + " was registered until " + stamp(*m.spec.ExpiresAt)
	case m.spec.CRL == nil:
		return "", ""
	}
	return m.askLists(id, at)
}

// epitaph is the reason why an identity's entry is not there.
func (all *catalogue) epitaph(id pki.Identity) string {
	for _, g := range all.gone {
		if g.id == id.ID && g.spec.Kind == id.Kind {
			return g.title() + " was removed at " + stamp(g.at)
		}
	}
	return "its entry was removed"
}

// stranger is the reason why a certificate belongs to no entry, with what its
// holder could do about it.
func (all *catalogue) stranger(chain []*x509.Certificate) string {
	leaf := chain[0]
	for _, m := range all.live {
		for _, c := range m.certs {
			switch {
			case m.spec.Kind == pki.KindCA && bytes.Equal(c.RawSubject, leaf.RawIssuer):
				return "it names " + nameOf(c) + " of " + m.title() + " as its issuer, but its signature is not of that key" + sha1Hint(leaf)
			case m.spec.Kind == pki.KindPin && bytes.Equal(c.RawIssuer, leaf.RawIssuer):
				return "another certificate of the same issuer is pinned (" + m.title() + "), but not this one: pin it too, or register its authority"
			}
		}
	}
	return "its issuer " + issuerName(leaf) + " leads to no registered authority: is an intermediate missing? Send it with the certificate, or register it"
}

func issuerName(c *x509.Certificate) string {
	return nameOf(&x509.Certificate{Subject: c.Issuer})
}

func sha1Hint(leaf *x509.Certificate) string {
	if leaf.SignatureAlgorithm == x509.SHA1WithRSA || leaf.SignatureAlgorithm == x509.ECDSAWithSHA1 {
		return " (it is signed with SHA-1, which is not accepted)"
	}
	return ""
}
