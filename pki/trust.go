package pki

import (
	"context"
	"crypto/x509"
	"fmt"
)

// GenerationOf returns the number of the generation that issued a machine's
// certificate; 0: none has, as far as is recorded.
func (a *Authority) GenerationOf(cert *x509.Certificate) int {
	rec, ok := a.records.find(SerialOf(cert))
	if !ok || rec.Fingerprint != fingerprintOf(cert) {
		return 0
	}
	return rec.generation()
}

// Trust returns the root that artifacts of a generation carry: its own, or that
// of SetTrust. Number 0 is the newest; nil: there is no such generation.
func (a *Authority) Trust(number int) *x509.Certificate {
	if g := a.current.Load().numbered(number); g != nil {
		return g.trusted()
	}
	return nil
}

// FixTrust records that artifacts carry Trust of a generation: from then on
// SetTrust refuses another root for it.
func (a *Authority) FixTrust(ctx context.Context, number int) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	g := a.current.Load().numbered(number)
	if g == nil {
		return ErrUnknownGeneration
	}
	return a.editRecord(ctx, g.number, false, func(r *generationRecord) error {
		r.Fixed = true
		return nil
	})
}

// SetTrust says which root clients of a generation must trust: that of the
// server certificates that were given for it. It is refused once artifacts carry
// another one.
func (a *Authority) SetTrust(ctx context.Context, number int, root *x509.Certificate) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	g := a.current.Load().numbered(number)
	switch {
	case g == nil:
		return ErrUnknownGeneration
	case g.trusted().Equal(root):
		return nil
	}
	next := *g
	next.trust = root
	err := a.editRecord(ctx, g.number, false, func(r *generationRecord) error {
		if r.Fixed {
			return fmt.Errorf("its artifacts trust %s (SHA-256 %s), and the server certificates end in %s (SHA-256 %s): "+
				"leave %s to the former, run nestctl ca rotate --root, and give certificates for the host name of the new generation",
				g.trusted().Subject, fingerprintOf(g.trusted()), root.Subject, fingerprintOf(root), g.host)
		}
		r.Trust = root.Raw
		if root.Equal(g.root) {
			r.Trust, next.trust = nil, nil
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("change the root of generation %d: %w", g.number, err)
	}
	a.publish(&next)
	return nil
}
