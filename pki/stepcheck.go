package pki

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// check compares what came back with what was asked for: exactly one usage, the
// same names, the time asked for, and no OCSP, for iPXE would go and ask.
func (s *stepCA) check(cert *x509.Certificate, l leaf, key crypto.Signer) error {
	const margin = time.Minute
	switch {
	case !belongs(key, cert):
		return errors.New("it certified another key")
	case cert.IsCA:
		return errors.New("it issued an authority's certificate")
	case len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != l.usage() || len(cert.UnknownExtKeyUsage) > 0:
		return fmt.Errorf("it issued a certificate of %s with %d extended key usages, and not just the one that was asked for", l.name, len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage))
	case cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("it issued a certificate without the key usage digitalSignature")
	case cert.Subject.CommonName != l.name || !slices.Equal(sansOf(cert), l.values()):
		return fmt.Errorf("it issued a certificate of %s for %s, where %s for %s were asked for",
			cert.Subject.CommonName, strings.Join(sansOf(cert), ", "), l.name, strings.Join(l.values(), ", "))
	case cert.NotBefore.After(l.from.Add(margin)) || cert.NotAfter.Before(l.until.Add(-margin)):
		return fmt.Errorf("it issued a certificate from %s to %s, where %s to %s was asked for", stamp(cert.NotBefore), stamp(cert.NotAfter), stamp(l.from), stamp(l.until))
	case len(cert.OCSPServer) > 0:
		return errors.New("it issued a certificate with an OCSP address, which iPXE would ask")
	}
	return nil
}

func (l leaf) values() []string {
	var all []string
	for _, san := range l.sans {
		all = append(all, san.Value)
	}
	slices.Sort(all)
	return all
}

func sansOf(cert *x509.Certificate) []string {
	all := slices.Concat(cert.DNSNames, cert.EmailAddresses)
	for _, ip := range cert.IPAddresses {
		all = append(all, toAddr(ip).String())
	}
	for _, u := range cert.URIs {
		all = append(all, u.String())
	}
	slices.Sort(all)
	return all
}
