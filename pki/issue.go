package pki

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.step.sm/crypto/x509util"
)

const (
	setURN = "urn:nestboot:set:"

	machineLife = 365 * 24 * time.Hour
)

// MachineCredential is the client certificate of one set. The key exists
// nowhere else; a credential prints as its serial number alone.
type MachineCredential struct {
	Certificate *x509.Certificate
	Chain       []*x509.Certificate // its issuers: intermediate, root
	Signer      crypto.Signer       // the key: *rsa.PrivateKey or *ecdsa.PrivateKey
	Key         *rsa.PrivateKey     // the same if it is an RSA key, else nil
	Generation  int
}

func (m MachineCredential) String() string {
	if m.Certificate == nil {
		return "no machine credential"
	}
	return "machine credential " + SerialOf(m.Certificate)
}

// Format prints String whatever the verb.
func (m MachineCredential) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(m.String())) }

// LogValue logs String.
func (m MachineCredential) LogValue() slog.Value { return slog.StringValue(m.String()) }

// MarshalText returns String.
func (m MachineCredential) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// CheckSet says why a certificate cannot name a set so: it takes 1 to 32
// lower-case letters, digits and '-'. Which of these names a set may have is
// ipxebuild.CheckSetName's to say.
func CheckSet(name string) error {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-"
	if name == "" || len(name) > 32 || strings.Trim(name, letters) != "" {
		return fmt.Errorf("set name %q: want 1 to 32 lower-case letters, digits and '-'", name)
	}
	return nil
}

// The types of a machine's key.
const (
	KeyRSA  = "rsa2048"
	KeyP256 = "p256"
)

// MachineKey is the type of key that the newest generation's machine
// certificates have: iPXE never sends a certificate whose key is of another kind
// than its issuer's.
func (a *Authority) MachineKey() string { return a.MachineKeyOf(0) }

// MachineKeyOf is MachineKey for a living generation; 0 is the newest.
func (a *Authority) MachineKeyOf(number int) string {
	if g := a.current.Load().numbered(number); g != nil && isEC(g.intermediate.PublicKey) {
		return KeyP256
	}
	return KeyRSA
}

// IssueMachine is IssueMachineOf the newest generation.
func (a *Authority) IssueMachine(ctx context.Context, set string, until time.Time) (MachineCredential, error) {
	return a.IssueMachineOf(ctx, 0, set, until)
}

// IssueMachineOf makes a key, or takes one that Run has made before, and a client
// certificate of a generation (0: the newest) for the machines of one set: common
// name and URI urn:nestboot:set:<set>, valid until the given time (zero: for a
// year) but not beyond EndOf the generation. From its return on, Verify accepts
// it.
func (a *Authority) IssueMachineOf(ctx context.Context, number int, set string, until time.Time) (MachineCredential, error) {
	if err := CheckSet(set); err != nil {
		return MachineCredential{}, err
	}
	g := a.current.Load().numbered(number)
	if g == nil {
		return MachineCredential{}, ErrUnknownGeneration
	}
	if until.IsZero() {
		until = a.now().Add(machineLife)
	}
	if now := a.now(); now.Before(g.intermediate.NotBefore) {
		return MachineCredential{}, fmt.Errorf("the clock says %s, which is before this PKI was made: set it", now.UTC().Format(time.DateTime))
	}
	if !until.After(a.now()) {
		return MachineCredential{}, fmt.Errorf("a certificate until %s would never be good", until.UTC().Format(time.DateTime))
	}
	m, err := a.newMachineKey(ctx, g)
	if err != nil {
		return MachineCredential{}, err
	}
	chain, err := a.sign(ctx, g, leaf{
		profile: machineProfile, name: set, until: until,
		sans: []x509util.SubjectAlternativeName{{Type: x509util.URIType, Value: setURN + set}},
	}, m.Signer)
	if err != nil {
		return MachineCredential{}, fmt.Errorf("issue certificate of set %s: %w", set, err)
	}
	cert := chain[0]
	m.Certificate, m.Chain, m.Generation = cert, chain[1:], g.number
	a.log.InfoContext(ctx, "machine certificate issued", "stage", "pki", "set", set, "serial", SerialOf(cert), "until", cert.NotAfter)
	return m, nil
}

func (a *Authority) newMachineKey(ctx context.Context, g *generation) (m MachineCredential, err error) {
	if isEC(g.intermediate.PublicKey) {
		m.Signer, err = newECKey()
		return m, err
	}
	if m.Key, err = a.keys.take(ctx); err == nil {
		m.Signer = m.Key
	}
	return m, err
}

// End is when the newest generation's intermediate expires: no certificate that
// it issues lives longer.
func (a *Authority) End() time.Time { return a.EndOf(0) }

// EndOf is End for a generation; zero if nothing can be issued in it: it was
// dropped, or its authority is not configured any more.
func (a *Authority) EndOf(number int) time.Time {
	g := a.current.Load().numbered(number)
	if g == nil || g.signer == nil {
		return time.Time{}
	}
	return g.intermediate.NotAfter
}

// SerialOf is a certificate's serial number as Identity and events have it.
func SerialOf(cert *x509.Certificate) string { return cert.SerialNumber.Text(16) }

// ParseSerial brings a hexadecimal serial number, as OpenSSL and others write
// it, to the form of SerialOf: without colons and leading zeros. What is none
// becomes the number of no certificate.
func ParseSerial(text string) string {
	return strings.TrimLeft(strings.ToLower(strings.ReplaceAll(text, ":", "")), "0")
}
