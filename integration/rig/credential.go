package rig

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"regexp"
)

// Certificate takes a set's certificate and key out of its script, as iPXE does.
func (s *Server) Certificate(ctx context.Context, set string) (tls.Certificate, error) {
	script, err := s.Nestctl(ctx, "artifact", "download", set, "ipxe-chain", "-o", "-")
	if err != nil {
		return tls.Certificate{}, err
	}
	cert, err := certificateIn(script)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read script of set %s: %w", set, err)
	}
	return cert, nil
}

var hexSetting = regexp.MustCompile(`(?m)^set (cert|privkey):hexraw ([0-9a-f]+)`)

func certificateIn(script []byte) (c tls.Certificate, err error) {
	found := map[string][]byte{}
	for _, m := range hexSetting.FindAllSubmatch(script, -1) {
		if found[string(m[1])], err = hex.DecodeString(string(m[2])); err != nil {
			return c, err
		}
	}
	if c.Leaf, err = x509.ParseCertificate(found["cert"]); err != nil {
		return c, err
	}
	if c.PrivateKey, err = x509.ParsePKCS1PrivateKey(found["privkey"]); err != nil {
		return c, err
	}
	c.Certificate = [][]byte{c.Leaf.Raw}
	return c, nil
}
