package links

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nestboot/nestboot/pki"
)

// Find says whose token it is that a request shows over a protocol (HTTPS or
// HTTP), or returns a *pki.Refusal. The Identity names neither the set of a UEFI
// link, whose number is in the Link, nor a subject; what the two hold is shared
// and must not be changed. Call it for every request.
func (l *Links) Find(kind pki.Kind, token, over string, at time.Time) (pki.Identity, Link, error) {
	secret, err := pki.ParseSecret(token)
	if err != nil { // its error would be about the token
		return pki.Identity{}, Link{}, &pki.Refusal{Code: pki.CodeUnknownToken, Reason: "this is no token"}
	}
	digest := digestOf(secret)
	r, ok := l.find(kind, digest)
	if !ok {
		return pki.Identity{}, Link{}, unknown(digest)
	}
	if err := r.refusal(over, at); err != nil {
		return pki.Identity{}, Link{}, err
	}
	return r.identity(), r.link(), nil
}

// Good says whether what Find returned is still good, over the protocol that it
// was shown, or returns a *pki.Refusal.
func (l *Links) Good(id pki.Identity, at time.Time) error {
	r, ok := l.find(id.Kind, id.Fingerprint)
	if !ok {
		return unknown(id.Fingerprint)
	}
	return r.refusal(asBefore, at)
}

// Explain asks about a token what Find asks, up to the rule that refuses it. The
// answers do not hold the token.
func (l *Links) Explain(token string, at time.Time) []pki.Step {
	form := pki.Step{Rule: "token", Reason: "it has the form of a token"}
	secret, err := pki.ParseSecret(token)
	if err != nil {
		form.Code, form.Reason = pki.CodeUnknownToken, "it is no token: want the 43 characters between two slashes of the URL"
		return []pki.Step{form}
	}
	for _, kind := range kinds() {
		r, ok := l.find(kind, digestOf(secret))
		if !ok {
			continue
		}
		steps := []pki.Step{form, {Rule: "url", Reason: "it belongs to the " + r.what()}}
		for _, s := range r.rules(asBefore, at) {
			if steps = append(steps, s); s.Code != "" {
				return steps
			}
		}
		return append(steps, r.machines())
	}
	return []pki.Step{form, {Rule: "url", Code: pki.CodeUnknownToken, Reason: unknownReason}}
}

const unknownReason = "no URL has this token, or it was revoked more than 90 days ago"

func unknown(digest pki.Digest) error {
	return &pki.Refusal{Code: pki.CodeUnknownToken, Reason: unknownReason, Identity: pki.Identity{Fingerprint: digest}}
}

func (r record) identity() pki.Identity {
	id := pki.Identity{Kind: r.Kind, ID: r.ID, Name: r.Name, Machines: r.Machines, Fingerprint: r.digest}
	if r.ExpiresAt != nil {
		id.NotAfter = *r.ExpiresAt
	}
	return id
}

// what names a link to an operator.
func (r record) what() string {
	if r.Kind == UEFI {
		return fmt.Sprintf("UEFI HTTP Boot URL %d %q of artifact set %d", r.ID, r.Name, r.Set)
	}
	return fmt.Sprintf("iPXE chain URL %d %q", r.ID, r.Name)
}

// refusal is the answer of the first rule that refuses.
func (r record) refusal(over string, at time.Time) error {
	for _, s := range r.rules(over, at) {
		if s.Code != "" {
			return &pki.Refusal{Code: s.Code, Reason: s.Reason, Identity: r.identity()}
		}
	}
	return nil
}

// asBefore stands for the protocol when that is not asked about.
const asBefore = "as before"

// rules are asked in this order.
func (r record) rules(over string, at time.Time) []pki.Step {
	return []pki.Step{r.notRevoked(), r.notExpired(at), r.protocol(over)}
}

func (r record) notRevoked() pki.Step {
	s := pki.Step{Rule: "revocation", Reason: "it is not revoked"}
	if !r.Revoked.IsZero() {
		s.Code, s.Reason = pki.CodeRevoked, "revoked at "+r.Revoked.UTC().Format(time.DateTime)
	}
	return s
}

// notExpired ends a link at the very moment that it names, so that a timer set
// to it finds it ended.
func (r record) notExpired(at time.Time) pki.Step {
	s := pki.Step{Rule: "expiry", Reason: "it has no end"}
	if r.ExpiresAt == nil {
		return s
	}
	s.Reason = "good until " + r.ExpiresAt.UTC().Format(time.DateTime)
	if !at.Before(*r.ExpiresAt) {
		s.Code, s.Reason = pki.CodeExpired, "expired at "+r.ExpiresAt.UTC().Format(time.DateTime)
	}
	return s
}

func (r record) protocol(over string) pki.Step {
	s := pki.Step{Rule: "protocol", Reason: "good over " + strings.Join(r.Protocols, " and ")}
	switch {
	case over == asBefore || slices.Contains(r.Protocols, over):
	case over == HTTP:
		s.Code, s.Reason = pki.CodeNotAllowed, "good over https only, and plain HTTP has shown it to the network: revoke it and make another"
	default:
		s.Code, s.Reason = pki.CodeNotAllowed, s.Reason+" only"
	}
	return s
}

// machines refuses nobody: only the machine itself says which one it is.
func (r record) machines() pki.Step {
	s := pki.Step{Rule: "machines", Reason: "any machine may boot with it"}
	switch n := len(r.Machines); {
	case r.Kind == UEFI:
		s.Reason = "it opens files and boots nothing"
	case n == 1:
		s.Reason = "only machine " + r.Machines[0] + " may boot with it"
	case n > 1:
		s.Reason = fmt.Sprintf("only %d machines may boot with it: %s", n, strings.Join(r.Machines, ", "))
	}
	return s
}
