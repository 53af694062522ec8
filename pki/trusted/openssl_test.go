package trusted

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
)

const opensslConfig = `
[ca]
default_ca = own
[own]
database = index.txt
serial = serial
crlnumber = crlnumber
new_certs_dir = .
certificate = ca.pem
private_key = ca.key
default_md = sha256
default_days = 30
default_crl_days = 7
policy = any
unique_subject = no
x509_extensions = machine
crl_extensions = list
[any]
commonName = supplied
[machine]
extendedKeyUsage = clientAuth
keyUsage = critical,digitalSignature
basicConstraints = CA:FALSE
[list]
authorityKeyIdentifier = keyid:always
[req]
distinguished_name = dn
[dn]
`

// TestOpenSSLAuthority has an authority as customers keep one: its files, with
// the text that openssl writes around them, and its lists, with reasons.
func TestOpenSSLAuthority(t *testing.T) {
	tool, err := exec.LookPath("openssl")
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip("openssl is not installed")
	}
	require.NoError(t, err)
	w := newWorld(t)
	w.now = time.Now().Add(time.Hour) // when all of it is valid
	for name, content := range map[string]string{"openssl.cnf": opensslConfig, "index.txt": "", "serial": "1000\n", "crlnumber": "1000\n"} {
		w.file(name, []byte(content))
	}
	openssl := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), tool, args...)
		cmd.Dir = w.dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	read := func(name string) string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(w.dir, name))
		require.NoError(t, err)
		return string(data)
	}
	openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/O=Corp/CN=Corp Machines", "-days", "365")
	for _, name := range []string{"good", "bad"} {
		openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name+".key", "-out", name+".csr", "-subj", "/CN="+name)
		openssl("ca", "-batch", "-config", "openssl.cnf", "-in", name+".csr", "-out", name+".pem")
	}
	openssl("ca", "-config", "openssl.cnf", "-gencrl", "-out", "ca.crl")
	leaf := func(name string) []*x509.Certificate {
		block, _ := pem.Decode([]byte(read(name + ".pem")))
		c, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		return chain(c)
	}
	require.Contains(t, read("good.pem"), "Certificate:\n", "there is text before it")

	tr := w.open()
	mustAdd(t, tr, Spec{Name: "corp", Kind: pki.KindCA, PEM: read("ca.pem"), CRL: &CRL{File: filepath.Join(w.dir, "ca.crl")}})
	pin := mustAdd(t, tr, Spec{Name: "pin", Kind: pki.KindPin, PEM: read("good.pem")})
	for _, name := range []string{"good", "bad"} {
		_, err := tr.Verify(leaf(name), w.clock())
		require.NoError(t, err)
	}
	_, err = tr.Remove(t.Context(), pin.ID)
	require.NoError(t, err)
	openssl("ca", "-config", "openssl.cnf", "-revoke", "bad.pem", "-crl_reason", "keyCompromise")
	openssl("ca", "-config", "openssl.cnf", "-gencrl", "-out", "ca.crl")
	tr.poll(t.Context())
	_, err = tr.Verify(leaf("bad"), w.clock())
	require.Equal(t, pki.CodeRevoked, codeOf(t, err))
	id, err := tr.Verify(leaf("good"), w.clock())
	require.NoError(t, err)
	require.Equal(t, "1000", id.Serial)

	// openssl's own word on the same list.
	out, err := exec.CommandContext(t.Context(), tool, "verify", "-crl_check", "-CAfile", filepath.Join(w.dir, "ca.pem"),
		"-CRLfile", filepath.Join(w.dir, "ca.crl"), filepath.Join(w.dir, "bad.pem")).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "certificate revoked")

	openssl("crl", "-in", "ca.crl", "-outform", "DER", "-out", "ca.der")
	found, err := parseLists([]byte(read("ca.der")), tr.all.Load().live[0].certs, tr.cfg.Now())
	require.NoError(t, err)
	require.Len(t, found, 1)
}
