package serving

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"time"
)

// faults are the reasons for which machines could not verify a chain. Of our own
// those are left out that an operator has to get past with bootd running.
func (p *pair) faults(at time.Time) (faults []error) {
	if !p.own {
		for _, c := range p.chain {
			faults = append(faults, timeFault(c, at))
		}
	}
	faults = append(faults, p.formFaults()...)
	faults = slices.DeleteFunc(faults, func(err error) bool { return err == nil })
	if len(faults) == 0 && !p.own {
		faults = p.pathFaults(at)
	}
	for i := range faults {
		faults[i] = fmt.Errorf("%s: %w", p.name, faults[i])
	}
	return faults
}

// formFaults are those that no time heals.
func (p *pair) formFaults() []error {
	faults := []error{orderFault(p.chain), usageFault(p.leaf())}
	for i, c := range p.chain {
		faults = append(faults, keyFault(c), signatureFault(c), criticalFault(c))
		if i < len(p.chain)-1 || i == 0 {
			faults = append(faults, ocspFault(c))
		}
	}
	return faults
}

// orderFault says what keeps a chain from being leaf, issuer, … root. iPXE (1.21.1
// and 2.0.0) trusts a root by its fingerprint and has to be sent it.
func orderFault(chain []*x509.Certificate) error {
	for i, c := range chain[:len(chain)-1] {
		next := chain[i+1]
		switch {
		case selfSigned(c):
			return fmt.Errorf("certificate %d (%s) is a root and others follow it: put the server's certificate first, then each one's issuer, the root last", i+1, nameOf(c))
		case signed(next, c):
			if err := authorityFault(next); err != nil {
				return err
			}
		case slices.ContainsFunc(chain, func(x *x509.Certificate) bool { return x != c && signed(x, c) }):
			return fmt.Errorf("the certificates are out of order, certificate %d (%s) did not issue certificate %d (%s): put the server's first, then each one's issuer, the root last", i+2, nameOf(next), i+1, nameOf(c))
		default:
			return fmt.Errorf("certificate %d (%s) did not issue certificate %d (%s): put in the certificate of %s, which did", i+2, nameOf(next), i+1, nameOf(c), c.Issuer)
		}
	}
	if last := chain[len(chain)-1]; !selfSigned(last) {
		return fmt.Errorf("the chain ends in %s and not in a self-signed root, which iPXE has to be sent: append the certificate of %s", nameOf(last), last.Issuer)
	}
	return nil
}

// signed reports whether parent signed child, by whatever digest: that one is
// judged apart. A signature that nobody here can verify is not held against the
// order.
func signed(parent, child *x509.Certificate) bool {
	return bytes.Equal(child.RawIssuer, parent.RawSubject) && (signatureFault(child) != nil ||
		parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature) == nil)
}

// authorityFault refuses an issuer that was never made one: iPXE and Go want
// basicConstraints, a root of X.509 version 1 has none.
func authorityFault(c *x509.Certificate) error {
	if !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return fmt.Errorf("%s is not marked as an authority, so nothing accepts what it signed: have it issued with the basic constraint CA and, if it has a key usage, with certificate signing", nameOf(c))
	}
	return nil
}

func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) && (signatureFault(c) != nil ||
		c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil)
}

func timeFault(c *x509.Certificate, at time.Time) error {
	switch {
	case at.Before(c.NotBefore):
		return fmt.Errorf("%s is not valid before %s: wait, or look at the clock, which says %s", nameOf(c), c.NotBefore.Format(time.DateTime), at.UTC().Format(time.DateTime))
	case at.After(c.NotAfter):
		return fmt.Errorf("%s has expired on %s: renew it", nameOf(c), c.NotAfter.Format(time.DateTime))
	default:
		return nil
	}
}

// keyFault refuses keys that iPXE 2.0.0 does not know (P-521, P-224, Ed25519)
// or that Go's TLS does not take (RSA beyond 8192 bits).
func keyFault(c *x509.Certificate) error {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < 2048 || bits > 8192 {
			return fmt.Errorf("%s has an RSA key of %d bits: use 2048 (up to 8192 work, slowly)", nameOf(c), bits)
		}
		return nil
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() {
			return nil
		}
		return fmt.Errorf("%s has a key on the curve %s, which iPXE does not know: use P-256, P-384 or RSA", nameOf(c), key.Curve.Params().Name)
	default:
		return fmt.Errorf("%s has a key of type %s, which iPXE does not know: use P-256, P-384 or RSA", nameOf(c), c.PublicKeyAlgorithm)
	}
}

// signatureFault refuses signatures that iPXE can't even parse: one anywhere in
// the chain, in the root too, and it refuses the whole.
func signatureFault(c *x509.Certificate) error {
	switch c.SignatureAlgorithm {
	case x509.SHA1WithRSA, x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.ECDSAWithSHA1, x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
		return nil
	case x509.UnknownSignatureAlgorithm:
		return fmt.Errorf("%s is signed with an unknown algorithm: have it signed with SHA256-RSA or ECDSA-SHA256", nameOf(c))
	default:
		return fmt.Errorf("%s is signed with %s, which iPXE cannot verify: have it signed with SHA256-RSA or ECDSA-SHA256", nameOf(c), c.SignatureAlgorithm)
	}
}

// criticalFault refuses critical extensions that iPXE (1.21.1 and 2.0.0) does not
// know, name constraints and policies among them: it refuses all of a chain with
// one, whatever it says.
func criticalFault(c *x509.Certificate) error {
	for _, e := range c.Extensions {
		if e.Critical && !slices.ContainsFunc(knownExtensions(), e.Id.Equal) {
			return fmt.Errorf("%s has the critical extension %s, which iPXE does not know: have it issued without it, or with it not critical", nameOf(c), cmp.Or(extensionNames()[e.Id.String()], e.Id.String()))
		}
	}
	return nil
}

// knownExtensions are those that iPXE reads: keyUsage, subjectAltName,
// basicConstraints, extKeyUsage.
func knownExtensions() []asn1.ObjectIdentifier {
	return []asn1.ObjectIdentifier{{2, 5, 29, 15}, {2, 5, 29, 17}, {2, 5, 29, 19}, {2, 5, 29, 37}}
}

func extensionNames() map[string]string {
	return map[string]string{"2.5.29.30": "nameConstraints", "2.5.29.32": "certificatePolicies", "2.5.29.36": "policyConstraints", "2.5.29.54": "inhibitAnyPolicy"}
}

// ocspFault refuses what makes iPXE ask an OCSP responder in the middle of a
// boot, and refuse the server if that one doesn't answer. It asks about every
// certificate but the root.
func ocspFault(c *x509.Certificate) error {
	if len(c.OCSPServer) == 0 {
		return nil
	}
	return fmt.Errorf("%s names the OCSP responder %s, which iPXE asks at each boot and does not go on without: have it issued without that", nameOf(c), c.OCSPServer[0])
}

// usageFault refuses a leaf that is not for servers. One that says nothing about
// its usage is for everything.
func usageFault(leaf *x509.Certificate) error {
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 ||
		slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return nil
	}
	return fmt.Errorf("%s is not for servers: have it issued with the extended key usage serverAuth", nameOf(leaf))
}

// pathFaults asks Go's verifier, as Ignition does: it knows name constraints,
// lengths of paths and usages of authorities. It takes no SHA-1, about which
// warnings speak.
func (p *pair) pathFaults(at time.Time) []error {
	if p.hasSHA1() {
		return nil
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(p.root())
	for _, c := range p.chain[1:] {
		between.AddCert(c)
	}
	if _, err := p.leaf().Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: at}); err != nil {
		return []error{fmt.Errorf("clients would refuse %s: %w", nameOf(p.leaf()), err)}
	}
	return nil
}

// hasSHA1 reports whether a signature that clients verify is made with SHA-1: a
// root's own isn't.
func (p *pair) hasSHA1() bool {
	return slices.ContainsFunc(p.chain[:len(p.chain)-1], func(c *x509.Certificate) bool {
		return c.SignatureAlgorithm == x509.SHA1WithRSA || c.SignatureAlgorithm == x509.ECDSAWithSHA1
	})
}

// rsaOnly reports whether iPXE before 2.0.0 can verify the chain: it knows no
// elliptic curve at all.
func (p *pair) rsaOnly() bool {
	return !slices.ContainsFunc(p.chain, func(c *x509.Certificate) bool { return c.PublicKeyAlgorithm != x509.RSA })
}

// withoutRSA is the fault of a host name none of whose chains iPXE before 2.0.0
// can verify.
func withoutRSA(host string, pairs []*pair) error {
	if slices.ContainsFunc(pairs, (*pair).rsaOnly) {
		return nil
	}
	return fmt.Errorf("%s: boot files of an iPXE before 2.0.0 are imported, which knows no elliptic curves, and each chain for this name has some (%s): add one that is RSA from the server's certificate to the root, or remove those boot files", host, namesOf(pairs))
}

func namesOf(pairs []*pair) string {
	var names []string
	for _, p := range pairs {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}
