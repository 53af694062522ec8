package trusted

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/nestboot/nestboot/pki"
)

// checkUsage demands that a certificate says it is for TLS clients. Others are
// stricter about what is missing than about what is too much: one that is for
// servers too is accepted, as many authorities issue them so.
func checkUsage(leaf *x509.Certificate) (code, reason string) {
	switch {
	case len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0:
		return pki.CodeWrongUsage, "it has no extended key usage: have it issued with clientAuth"
	case slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return pki.CodeWrongUsage, "its extended key usage is any: have it issued with clientAuth instead"
	case !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		return pki.CodeWrongUsage, "its extended key usage does not include clientAuth"
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return pki.CodeWrongUsage, "its key usage does not include digitalSignature"
	case len(leaf.UnhandledCriticalExtensions) > 0:
		return pki.CodeWrongUsage, fmt.Sprintf("it has a critical extension that is not understood: %s", leaf.UnhandledCriticalExtensions[0])
	}
	if err := checkKey(leaf); err != nil { // with some no handshake could end
		return pki.CodeWrongUsage, "it " + err.Error()
	}
	return "", ""
}

// checkPath says what is wrong with a path (leaf first, anchor last) at any
// time: usage, name constraints, path lengths, policies. The signatures have
// been checked.
func checkPath(path []*x509.Certificate) (code, reason string) {
	leaf := path[0]
	if len(path) == 1 || leaf.BasicConstraintsValid && leaf.IsCA {
		return pki.CodeWrongUsage, "it is an authority's own certificate, not a machine's"
	}
	if code, reason = checkUsage(leaf); code != "" {
		return code, reason
	}
	at, until := leaf.NotBefore, leaf.NotAfter
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for i, c := range path[1:] {
		if err := checkConstraints(c); err != nil {
			return pki.CodeNotAllowed, fmt.Sprintf("%s, which issued it, %s", nameOf(c), err)
		}
		if cn := outsideOf(c, leaf); cn != "" {
			return pki.CodeNotAllowed, fmt.Sprintf("the name constraints of %s forbid its common name %.120q", nameOf(c), cn)
		}
		if at.Before(c.NotBefore) {
			at = c.NotBefore
		}
		if until.After(c.NotAfter) {
			until = c.NotAfter
		}
		if i == len(path)-2 {
			roots.AddCert(c)
		} else {
			intermediates.AddCert(c)
		}
	}
	if at.After(until) {
		return "", "" // never valid all together, which is found out for each time anew
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return explainPath(err)
}

// explainPath turns the verifier's answer into ours.
func explainPath(err error) (code, reason string) {
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return "", ""
	case !errors.As(err, &invalid):
		return pki.CodeUnknownCA, fmt.Sprintf("%.300s", err)
	}
	switch invalid.Reason {
	case x509.CANotAuthorizedForThisName, x509.UnconstrainedName, x509.TooManyConstraints:
		return pki.CodeNotAllowed, fmt.Sprintf("the authority's name constraints forbid it: %.300q", invalid.Detail)
	case x509.IncompatibleUsage, x509.CANotAuthorizedForExtKeyUsage:
		return pki.CodeWrongUsage, "an authority between it and the registered one is not for TLS clients (its extended key usage)"
	case x509.TooManyIntermediates:
		return pki.CodeUnknownCA, "there are more authorities between it and the registered one than that allows (path length)"
	}
	return pki.CodeUnknownCA, fmt.Sprintf("%.300s", err)
}
