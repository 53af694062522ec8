package pki

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/x509util"
)

// signer issues the certificates of a generation: the embedded authority, or a
// step-ca elsewhere.
type signer interface {
	// sign certifies key as l says, and records it if it is a machine's. Its
	// issuers follow the certificate, the root apart, if they are not those of
	// the generation.
	sign(ctx context.Context, l leaf, key crypto.Signer) ([]*x509.Certificate, error)
}

// embedded signs with a key that this process holds.
type embedded struct {
	ca     *authority.Authority
	issuer *x509.Certificate
}

// newEmbedded makes the signer of a generation, whose intermediate has this key.
func (a *Authority) newEmbedded(g *generation, key crypto.Signer) (signer, error) {
	ca, err := authority.NewEmbedded(
		authority.WithX509RootCerts(g.root),
		authority.WithX509Signer(g.intermediate, key),
		authority.WithDatabase(recordsOf{a.records, g.number}),
		authority.WithQuietInit(),
	)
	if err != nil {
		return nil, fmt.Errorf("start the embedded authority: %w", err)
	}
	return embedded{ca, g.intermediate}, nil
}

func (e embedded) sign(ctx context.Context, l leaf, key crypto.Signer) ([]*x509.Certificate, error) {
	validity := provisioner.CertificateModifierFunc(func(cert *x509.Certificate, _ provisioner.SignOptions) error {
		cert.NotBefore, cert.NotAfter = l.from, l.until
		return nil
	})
	// It carries no names: the profile alone says what is certified.
	request, err := newRequest(&x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	chain, err := e.ca.SignWithContext(ctx, request, provisioner.SignOptions{}, l, validity)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return chain[:1], nil
}

// newRequest proves possession of key.
func newRequest(tpl *x509.CertificateRequest, key crypto.Signer) (*x509.CertificateRequest, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, tpl, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate request: %w", err)
	}
	return request, nil
}

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
	serverECProfile profile = `{
	"subject": {{ toJson .Subject }},
	"sans": {{ toJson .SANs }},
	"keyUsage": ["digitalSignature"],
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
	profile     profile
	name        string // common name
	sans        []x509util.SubjectAlternativeName
	from, until time.Time
}

// Options implements provisioner.CertificateOptions.
func (l leaf) Options(provisioner.SignOptions) []x509util.Option {
	data := x509util.NewTemplateData()
	data.SetCommonName(l.name)
	data.SetSubjectAlternativeNames(l.sans...)
	return []x509util.Option{x509util.WithTemplate(string(l.profile), data)}
}

// usage is the one extended key usage of the certificate.
func (l leaf) usage() x509.ExtKeyUsage {
	if l.profile == machineProfile {
		return x509.ExtKeyUsageClientAuth
	}
	return x509.ExtKeyUsageServerAuth
}

// errNoSigner says that a generation has outlived what issued for it.
var errNoSigner = errors.New("its issuing authority is not configured any more")

// sign issues l for key, and returns the certificate with its issuers, root
// last. No certificate outlives the issuer that vouches for it, and none leaves
// that the issuer's own limits make useless, such as name constraints.
func (a *Authority) sign(ctx context.Context, g *generation, l leaf, key crypto.Signer) ([]*x509.Certificate, error) {
	if g.signer == nil {
		return nil, errNoSigner
	}
	now := a.now()
	l.from = now.Add(-backdate)
	if l.until.After(g.intermediate.NotAfter) && g.source != SourceStepCA { // which may have another by now
		l.until = g.intermediate.NotAfter
	}
	if !l.until.After(now) {
		return nil, g.over()
	}
	chain, err := g.signer.sign(ctx, l, key)
	if err != nil {
		return nil, err
	}
	if len(chain) == 1 {
		return append(chain, g.chain()...), a.checkIssued(g, l, chain[0], g.chain())
	}
	if err := a.checkIssued(g, l, chain[0], chain[1:]); err != nil {
		return nil, err
	}
	return append(chain, g.root), a.learn(g.number, chain[1:])
}

// over says that the issuer has expired.
func (g *generation) over() error {
	end := g.intermediate.NotAfter.Format(time.DateTime)
	if g.source == SourceOwn {
		return fmt.Errorf("the intermediate expired at %s: rotate it with nestctl ca rotate", end)
	}
	return fmt.Errorf("the intermediate expired at %s: %w", end, notOurs(g))
}

// checkIssued verifies a new certificate as a client or we ourselves will.
func (a *Authority) checkIssued(g *generation, l leaf, cert *x509.Certificate, issuers []*x509.Certificate) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(g.root)
	for _, c := range issuers {
		between.AddCert(c)
	}
	at := a.now()
	if at.Before(issuers[0].NotBefore) {
		at = issuers[0].NotBefore
	}
	_, err := cert.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{l.usage()},
	})
	if err != nil {
		return fmt.Errorf("the authority issued a certificate that nobody would accept: %w", err)
	}
	return nil
}
