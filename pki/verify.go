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

func (r *Refusal) Error() string { return "client certificate refused (" + r.Code + "): " + r.Reason }

// Verify says who presents chain (leaf first, as in
// tls.ConnectionState.PeerCertificates) at the given time, or returns a
// *Refusal. To be issued by this PKI is necessary but not enough: the
// certificate must be recorded as active. An expired certificate is called
// expired only if it is ours.
//
// It reads memory only, so call it for every request: a certificate may expire
// or be revoked while its connection is open.
func (a *Authority) Verify(chain []*x509.Certificate, at time.Time) (Identity, error) {
	if len(chain) == 0 {
		return Identity{}, &Refusal{Code: CodeNoCertificate, Reason: "the client sent none"}
	}
	leaf := chain[0]
	id := Identity{
		Subject: leaf.Subject.CommonName, Fingerprint: sha256.Sum256(leaf.Raw), Serial: SerialOf(leaf), NotAfter: leaf.NotAfter,
	}
	if err := a.checkIssuer(leaf, at); err != nil {
		return Identity{}, &Refusal{Code: CodeUnknownCA, Reason: err.Error(), Identity: id}
	}
	if set, ok := setOf(leaf); ok {
		id.Kind, id.Name, id.Set = KindSet, set, set
	}
	if code, reason := a.checkLeaf(leaf, id, at); code != "" {
		return Identity{}, &Refusal{Code: code, Reason: reason, Identity: id}
	}
	return id, nil
}

// checkIssuer builds the chain from our own intermediate and root, never from
// what the client sent: its work is bounded. It asks as of a time at which the
// leaf is valid, for whether it is ours comes before whether it is expired.
func (a *Authority) checkIssuer(leaf *x509.Certificate, at time.Time) error {
	if at.Before(leaf.NotBefore) {
		at = leaf.NotBefore
	}
	if at.After(leaf.NotAfter) {
		at = leaf.NotAfter
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: a.roots, Intermediates: a.intermediates, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("not issued by this boot pki: %w", err)
	}
	return nil
}

// checkLeaf returns the code and reason of a refusal, or two empty strings.
func (a *Authority) checkLeaf(leaf *x509.Certificate, id Identity, at time.Time) (code, reason string) {
	rec, known := a.records.find(id.Serial)
	switch {
	case at.Before(leaf.NotBefore):
		return CodeNotYetValid, "valid from " + leaf.NotBefore.UTC().Format(time.DateTime)
	case at.After(leaf.NotAfter):
		return CodeExpired, "expired at " + leaf.NotAfter.UTC().Format(time.DateTime)
	case !forMachines(leaf):
		return CodeWrongUsage, "not issued to a machine"
	case !known || rec.Fingerprint != id.Fingerprint || rec.Set != id.Set:
		return CodeUnknownSet, "not among the recorded certificates"
	case rec.State != stateActive:
		return CodeRevoked, "its state is " + rec.State
	}
	return "", ""
}

// forMachines demands clientAuth and nothing else.
func forMachines(leaf *x509.Certificate) bool {
	return len(leaf.ExtKeyUsage) == 1 && leaf.ExtKeyUsage[0] == x509.ExtKeyUsageClientAuth &&
		len(leaf.UnknownExtKeyUsage) == 0
}
