package ignition

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/coreos/ignition/v2/config/v3_4/types"
)

// Pointer is the config that a machine's initrd carries: it holds nothing but where the real one is (an https URL as
// in Done), the grant to ask for it with, and the authorities that the answering server's certificate may come from,
// beside those of the image. Its spec is 3.3.0, so every Flatcar and Debian's Ignition 2.14 read it. It is a secret.
func Pointer(url, grant string, rootPEM []byte) ([]byte, error) {
	root, err := authorities(rootPEM)
	if err := errors.Join(checkURL(url), checkBearer(grant), err); err != nil {
		return nil, fmt.Errorf("point to ignition config: %w", err)
	}
	var c types.Config
	c.Ignition.Config.Replace = types.Resource{
		Source:      new(url),
		HTTPHeaders: types.HTTPHeaders{{Name: "Authorization", Value: new(bearer(grant))}},
	}
	c.Ignition.Security.TLS.CertificateAuthorities = []types.Resource{{Source: new(dataURL(root))}}
	raw, err := encode(c, spec33)
	if err != nil {
		return nil, fmt.Errorf("point to ignition config: %w", err)
	}
	return raw, nil
}

// authorities re-encodes PEM certificates of authorities. It refuses all else, lest a key pasted beside a certificate
// travels to every machine.
func authorities(rootPEM []byte) (string, error) {
	var out bytes.Buffer
	for rest := bytes.TrimSpace(rootPEM); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return "", errors.New("root certificate is not PEM")
		}
		if block.Type != "CERTIFICATE" {
			return "", fmt.Errorf("root certificate comes with a %q: it must stand alone", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return "", fmt.Errorf("root certificate: %w", err)
		}
		if !cert.IsCA {
			return "", fmt.Errorf("root certificate %q is not an authority's", cert.Subject)
		}
		out.Write(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
	}
	if out.Len() == 0 {
		return "", errors.New("root certificate is missing")
	}
	return out.String(), nil
}
