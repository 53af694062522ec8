package pki

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/x509util"
)

const (
	setURN = "urn:nestboot:set:"

	machineLife = 365 * 24 * time.Hour
)

// A profile is a leaf template. Each has exactly one extended key usage: the
// authority's default has two, and a machine's certificate could then serve as
// a boot server. Neither mentions OCSP, CRL or an issuer's address, for iPXE
// would go and ask.
type profile string

const (
	serverProfile profile = `{
	"subject": {{ toJson .Subject }},
	"sans": {{ toJson .SANs }},
	"keyUsage": ["digitalSignature", "keyEncipherment"],
	"extKeyUsage": ["serverAuth"]
}`
	machineProfile profile = `{
	"subject": {{ toJson .Subject }},
	"sans": {{ toJson .SANs }},
	"keyUsage": ["digitalSignature"],
	"extKeyUsage": ["clientAuth"]
}`
)

// leaf is a certificate to be signed.
type leaf struct {
	profile profile
	name    string // common name
	sans    []x509util.SubjectAlternativeName
	until   time.Time
}

// Options implements provisioner.CertificateOptions.
func (l leaf) Options(provisioner.SignOptions) []x509util.Option {
	data := x509util.NewTemplateData()
	data.SetCommonName(l.name)
	data.SetSubjectAlternativeNames(l.sans...)
	return []x509util.Option{x509util.WithTemplate(string(l.profile), data)}
}

// sign issues l for key. No certificate outlives the intermediate that
// vouches for it.
func (a *Authority) sign(ctx context.Context, l leaf, key *rsa.PrivateKey) (*x509.Certificate, error) {
	now, end := a.now(), l.until
	if end.After(a.intermediate.NotAfter) {
		end = a.intermediate.NotAfter
	}
	if !end.After(now) {
		return nil, fmt.Errorf("the intermediate expired at %s", a.intermediate.NotAfter.Format(time.DateTime))
	}
	validity := provisioner.CertificateModifierFunc(func(cert *x509.Certificate, _ provisioner.SignOptions) error {
		cert.NotBefore, cert.NotAfter = now.Add(-backdate), end
		return nil
	})
	request, err := newRequest(key)
	if err != nil {
		return nil, err
	}
	chain, err := a.embedded.SignWithContext(ctx, request, provisioner.SignOptions{}, l, validity)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return chain[0], nil
}

// newRequest proves possession of key. It carries no names: the profile alone
// says what is certified.
func newRequest(key *rsa.PrivateKey) (*x509.CertificateRequest, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate request: %w", err)
	}
	return request, nil
}

// MachineCredential is the client certificate of one set. The key exists
// nowhere else; a credential prints as its serial number alone.
type MachineCredential struct {
	Certificate *x509.Certificate
	Chain       []*x509.Certificate // its issuers: intermediate, root
	Key         *rsa.PrivateKey
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

// IssueMachine makes a key, or takes one that Run has made before, and a client
// certificate for the machines of one set: common name and URI
// urn:nestboot:set:<set>, valid until the given time (zero: for a year) but not
// beyond End. From its return on, Verify accepts it.
func (a *Authority) IssueMachine(ctx context.Context, set string, until time.Time) (MachineCredential, error) {
	if err := CheckSet(set); err != nil {
		return MachineCredential{}, err
	}
	if until.IsZero() {
		until = a.now().Add(machineLife)
	}
	if now := a.now(); now.Before(a.intermediate.NotBefore) {
		return MachineCredential{}, fmt.Errorf("the clock says %s, which is before this PKI was made: set it", now.UTC().Format(time.DateTime))
	}
	if !until.After(a.now()) {
		return MachineCredential{}, fmt.Errorf("a certificate until %s would never be good", until.UTC().Format(time.DateTime))
	}
	key, err := a.keys.take(ctx)
	if err != nil {
		return MachineCredential{}, err
	}
	cert, err := a.sign(ctx, leaf{
		profile: machineProfile, name: set, until: until,
		sans: []x509util.SubjectAlternativeName{{Type: x509util.URIType, Value: setURN + set}},
	}, key)
	if err != nil {
		return MachineCredential{}, fmt.Errorf("issue certificate of set %s: %w", set, err)
	}
	a.log.InfoContext(ctx, "machine certificate issued", "stage", "pki", "set", set, "serial", SerialOf(cert), "until", cert.NotAfter)
	return MachineCredential{Certificate: cert, Chain: []*x509.Certificate{a.intermediate, a.root}, Key: key}, nil
}

// End is when the intermediate expires: no certificate lives longer.
func (a *Authority) End() time.Time { return a.intermediate.NotAfter }

// SerialOf is a certificate's serial number as Identity and events have it.
func SerialOf(cert *x509.Certificate) string { return cert.SerialNumber.Text(16) }
