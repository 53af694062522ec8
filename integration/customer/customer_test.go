package customer

import (
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAuthority(t *testing.T) {
	for _, k := range []KeyType{RSA2048, P256} {
		root, err := NewRoot(k, "Root")
		require.NoError(t, err)
		sub, err := root.Sub("Sub")
		require.NoError(t, err)
		pair, err := sub.Issue(Leaf{Name: "boot", Usage: x509.ExtKeyUsageServerAuth, Hosts: []string{"boot.test"}})
		require.NoError(t, err)
		require.Equal(t, []*x509.Certificate{pair.Cert, sub.Cert, root.Cert}, pair.Chain)
		roots, between := x509.NewCertPool(), x509.NewCertPool()
		roots.AddCert(root.Cert)
		between.AddCert(sub.Cert)
		_, err = pair.Cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: "boot.test"})
		require.NoError(t, err)

		dir := t.TempDir()
		require.NoError(t, WriteCerts(filepath.Join(dir, "chain"), pair.Chain...))
		require.NoError(t, WriteKey(filepath.Join(dir, "key"), pair.Key))
		read, err := tls.LoadX509KeyPair(filepath.Join(dir, "chain"), filepath.Join(dir, "key"))
		require.NoError(t, err)
		require.Len(t, read.Certificate, 3)

		again, err := sub.Issue(Leaf{Name: "other", Usage: x509.ExtKeyUsageClientAuth, Key: pair.Key.Public()})
		require.NoError(t, err)
		require.Nil(t, again.Key)
		require.Equal(t, pair.Cert.PublicKey, again.Cert.PublicKey)
	}
}
