package pki

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write golden files")

// describe lists what firmware looks at.
func describe(name string, c *x509.Certificate) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("[%s]", name)
	line("subject %s", c.Subject)
	line("issuer %s", c.Issuer)
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		line("key %T %d", key, key.N.BitLen())
	case *ecdsa.PublicKey:
		line("key %T %s", key, key.Curve.Params().Name)
	}
	line("signature %s", c.SignatureAlgorithm)
	line("valid %s to %s", c.NotBefore.Sub(start), c.NotAfter.Sub(start))
	line("ca %t pathlen %d", c.IsCA, c.MaxPathLen)
	line("key usage %b", c.KeyUsage)
	line("extended key usage %v %v", c.ExtKeyUsage, c.UnknownExtKeyUsage)
	line("names %v %v %v %v", c.DNSNames, c.IPAddresses, c.URIs, c.EmailAddresses)
	line("ocsp %v aia %v crl %v", c.OCSPServer, c.IssuingCertificateURL, c.CRLDistributionPoints)
	for _, e := range c.Extensions {
		line("extension %s critical %t", e.Id, e.Critical)
	}
	return regexp.MustCompile(`[0-9a-f]{8}\b`).ReplaceAllString(b.String(), "<key>")
}

func TestCertificatesGolden(t *testing.T) {
	cfg, _ := testConfig(t)
	a := openAuthority(t, cfg)
	m, err := a.IssueMachine(t.Context(), "rack-1", time.Time{})
	require.NoError(t, err)
	got := describe("root", a.Root()) + describe("intermediate", newest(a).intermediate) +
		describe("server", a.Leafs(1)[1].Leaf) + describe("machine", m.Certificate) + describe("server p-256", a.Leafs(1)[0].Leaf)
	first := newest(a)
	_, err = a.RotateRoot(t.Context())
	require.NoError(t, err)
	got += describe("second root", newest(a).root) + describe("first root, certified by the second", newest(a).cross[1])

	golden := filepath.Join("testdata", "certificates.golden")
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), got)

	require.Equal(t, []*x509.Certificate{first.intermediate, first.root}, m.Chain)
	require.NotEqual(t, first.root.SerialNumber, first.intermediate.SerialNumber)
	leaf, second := a.Leafs(1)[1], newest(a)
	require.Equal(t, [][]byte{leaf.Leaf.Raw, first.intermediate.Raw, first.root.Raw}, leaf.Certificate)
	require.Equal(t, [][]byte{leaf.Leaf.Raw, first.intermediate.Raw, first.root.Raw, second.cross[1].Raw, second.root.Raw}, a.Leafs(0)[1].Certificate)
}

func TestT37_CertificatesAreBackdated(t *testing.T) {
	cfg, _ := testConfig(t)
	a := openAuthority(t, cfg)
	m, err := a.IssueMachine(t.Context(), "rack-1", start.Add(time.Hour))
	require.NoError(t, err)
	for _, c := range []*x509.Certificate{a.Root(), newest(a).intermediate, a.ServerCertificate().Leaf, m.Certificate} {
		require.Equal(t, start.Add(-24*time.Hour), c.NotBefore, c.Subject)
	}
	require.Equal(t, start.Add(time.Hour), m.Certificate.NotAfter)
}

func TestOpenSSLAcceptsTheChains(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip("openssl is not installed")
	}
	require.NoError(t, err)
	cfg, _ := testConfig(t)
	a := openAuthority(t, cfg)
	m, err := a.IssueMachine(t.Context(), "rack-1", time.Time{})
	require.NoError(t, err)
	machine := filepath.Join(t.TempDir(), "machine.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.Certificate.Raw})
	require.NoError(t, os.WriteFile(machine, text, 0o600))

	verify := func(purpose, file string) (string, error) {
		out, err := exec.CommandContext(t.Context(), openssl, "verify", "-x509_strict",
			"-attime", fmt.Sprint(start.Unix()), "-purpose", purpose,
			"-CAfile", filepath.Join(cfg.Dir, "root.pem"),
			"-untrusted", filepath.Join(cfg.Dir, "intermediate.pem"), file).CombinedOutput()
		return string(out), err
	}
	server := filepath.Join(cfg.Dir, "server.pem")
	for _, ok := range [][2]string{{"sslserver", server}, {"sslclient", machine}} {
		out, err := verify(ok[0], ok[1])
		require.NoError(t, err, out)
	}
	for _, wrong := range [][2]string{{"sslclient", server}, {"sslserver", machine}} {
		out, err := verify(wrong[0], wrong[1])
		require.Error(t, err, out)
		require.Contains(t, out, "unsuitable certificate purpose")
	}
}

// handshake connects once and returns what either side saw.
func handshake(t *testing.T, server, client *tls.Config) (seenByServer, seenByClient tls.ConnectionState) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	failed := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			defer func() { _ = conn.Close() }()
			s := tls.Server(conn, server)
			err = s.HandshakeContext(context.Background())
			seenByServer = s.ConnectionState()
		}
		failed <- err
	}()
	conn, err := (&tls.Dialer{Config: client}).DialContext(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	require.NoError(t, <-failed)
	seenByClient = conn.(*tls.Conn).ConnectionState()
	require.NoError(t, conn.Close())
	return seenByServer, seenByClient
}

func TestT10_HandshakeWithAndWithoutCertificate(t *testing.T) {
	cfg, c := testConfig(t)
	a := openAuthority(t, cfg)
	m, err := a.IssueMachine(t.Context(), "rack-1", time.Time{})
	require.NoError(t, err)
	server := &tls.Config{
		MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.ServerCertificate(), nil },
		Time:           c.Now,
	}
	client := &tls.Config{
		MaxVersion: tls.VersionTLS12, ServerName: "ipxe.example.net", RootCAs: a.current.Load().roots, Time: c.Now,
		CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}, // of iPXE's
	}

	seen, _ := handshake(t, server, client)
	_, err = a.Verify(seen.PeerCertificates, c.Now())
	require.Equal(t, CodeNoCertificate, refusal(t, err).Code)

	client.Certificates = []tls.Certificate{{Certificate: [][]byte{m.Certificate.Raw, newest(a).intermediate.Raw}, PrivateKey: m.Key}}
	seen, byClient := handshake(t, server, client)
	require.Equal(t, uint16(tls.VersionTLS12), seen.Version)
	require.Equal(t, a.Root().Raw, byClient.PeerCertificates[2].Raw, "iPXE trusts a fingerprint: the root must be sent")
	id, err := a.Verify(seen.PeerCertificates, c.Now())
	require.NoError(t, err)
	require.Equal(t, "rack-1", id.Set)
}
