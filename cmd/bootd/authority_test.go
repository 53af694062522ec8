package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
)

// TestNewRootBesideTheOld goes through a rotation of the root as an operator
// does.
func TestNewRootBesideTheOld(t *testing.T) {
	d := newDaemon(t, "")
	d.start()
	d.create(`{"name":"rack1","exposure":["tftp"]}`)
	old := d.client("rack1-1")
	oldRoot := d.roots(1)
	second := strings.Replace(bootURL("1"), "ipxe.test", "ipxe-2.test", 1)
	status, _ := d.ask(old, http.MethodGet, bootURL("1"))
	require.Equal(t, http.StatusOK, status)

	d.admin(http.MethodPost, "/authority/rotate", `{"root":true}`, http.StatusOK, nil)
	status, _ = d.ask(old, http.MethodGet, bootURL("1"))
	require.Equal(t, http.StatusOK, status, "machines of the old root boot")
	script, err := d.tftp("rack1.ipxe")
	require.NoError(t, err)
	require.Contains(t, string(script), "https://ipxe.test")
	d.create(`{"name":"rack2"}`)
	fresh := d.client("rack2-2")
	transport := fresh.Transport.(*http.Transport)
	transport.TLSClientConfig.RootCAs = d.roots(2)
	status, body := d.ask(fresh, http.MethodGet, second)
	require.Equal(t, http.StatusOK, status, body)
	transport.CloseIdleConnections()
	transport.TLSClientConfig.RootCAs = oldRoot
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, second, http.NoBody)
	require.NoError(t, err)
	_, err = fresh.Do(req) //nolint:bodyclose // there is none
	require.ErrorAs(t, err, new(x509.UnknownAuthorityError), "the old root has no say under the new name")
	boot := d.client("")
	for _, roots := range []*x509.CertPool{oldRoot, d.roots(2)} {
		tr := boot.Transport.(*http.Transport)
		tr.CloseIdleConnections()
		tr.TLSClientConfig.RootCAs = roots
		status, _ = d.ask(boot, http.MethodGet, "https://boot.test/nothing")
		require.Equal(t, http.StatusNotFound, status, "boot. is verified under either root")
	}

	d.admin(http.MethodDelete, "/authority/generations/1", "", http.StatusConflict, nil)
	d.admin(http.MethodPost, "/ipxe_boot_artifacts/1/renew", "", http.StatusOK, nil)
	script, err = d.tftp("rack1.ipxe")
	require.NoError(t, err)
	require.Contains(t, string(script), "https://ipxe-2.test")
	status, _ = d.ask(old, http.MethodGet, bootURL("1"))
	require.Equal(t, http.StatusOK, status, "media of the former certificate boot")
	d.admin(http.MethodDelete, "/authority/generations/1", "", http.StatusConflict, nil)
	d.admin(http.MethodDelete, "/authority/generations/1?force=true", "", http.StatusOK, nil)
	req, err = http.NewRequestWithContext(t.Context(), http.MethodGet, bootURL("1"), http.NoBody)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		res, err := old.Do(req)
		if err == nil {
			_ = res.Body.Close()
		}
		return err != nil
	}, time.Second, 10*time.Millisecond, "its name answers no more")
	require.Contains(t, string(d.adminBytes("/events")), "generation 1 of the authority, whose name it was, was dropped")
	d.stop()
	d.start()
	again := d.client("rack2-2")
	again.Transport.(*http.Transport).TLSClientConfig.RootCAs = d.roots(2)
	status, body = d.ask(again, http.MethodGet, second)
	require.Equal(t, http.StatusOK, status, body)
}

// roots is what machines of a generation trust, as the API exports it.
func (d *running) roots(generation int) *x509.CertPool {
	d.t.Helper()
	pool := x509.NewCertPool()
	require.True(d.t, pool.AppendCertsFromPEM(d.adminBytes(fmt.Sprintf("/authority/export?generation=%d", generation))))
	return pool
}

// TestGivenCertificatesAreShownAndReread starts with certificates of the
// customer's authority, and replaces them.
func TestGivenCertificatesAreShownAndReread(t *testing.T) {
	corp := newCorporate(t, "Corporate CA")
	d := newDaemon(t, "certificates: [{certificate: wild.pem, key: wild.pem}]\n")
	d.write("wild.pem", pairPEM(t, corp.server("*.other")))
	require.Contains(t, d.refused(), "boot.test")
	d.write("wild.pem", pairPEM(t, corp.server("*.test")))
	d.start()
	serial := func(name string) string {
		pool := x509.NewCertPool()
		pool.AddCert(corp.cert)
		c, err := tls.Dial("tcp", d.ports.https, &tls.Config{RootCAs: pool, ServerName: name})
		require.NoError(t, err)
		defer func() { _ = c.Close() }()
		chain := c.ConnectionState().PeerCertificates
		require.True(t, chain[len(chain)-1].Equal(corp.cert), "iPXE needs the root to be sent")
		return chain[0].SerialNumber.String()
	}
	require.Equal(t, "2", serial("boot.test"))
	require.Equal(t, "2", serial("ipxe.test"))
	require.True(t, bytes.Equal([]byte(corp.pem()), d.adminBytes("/authority/export")), "sets trust the given root")
	d.create(`{"name":"rack1"}`)
	c := d.client("rack1-1")
	pool := x509.NewCertPool()
	pool.AddCert(corp.cert)
	c.Transport.(*http.Transport).TLSClientConfig.RootCAs = pool
	status, body := d.ask(c, http.MethodGet, bootURL("1"))
	require.Equal(t, http.StatusOK, status, body)

	d.write("wild.pem", pairPEM(t, corp.server("*.test")))
	require.Eventually(t, func() bool { return serial("boot.test") == "3" }, 20*time.Second, 50*time.Millisecond, "without a restart")
}

// TestImportedAuthorityIssues has the customer's authority issue everything.
func TestImportedAuthorityIssues(t *testing.T) {
	corp := newCorporate(t, "Corporate CA")
	d := newDaemon(t, "authority: {certificate: ca.pem, key: ca.pem}\n")
	now := time.Now()
	issuer := corp.issue(x509.Certificate{
		Subject: pkix.Name{CommonName: "Corporate issuing CA"}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}, false)
	d.write("ca.pem", pairPEM(t, issuer))
	d.start()
	require.Equal(t, corp.pem(), string(d.adminBytes("/authority/export")))
	d.create(`{"name":"rack1","expires_at":"` + now.Add(30*24*time.Hour).UTC().Format(time.RFC3339) + `"}`)
	c := d.client("")
	c.Transport.(*http.Transport).TLSClientConfig = d.client("rack1-1").Transport.(*http.Transport).TLSClientConfig
	c.Transport.(*http.Transport).TLSClientConfig.RootCAs = d.roots(1)
	status, body := d.ask(c, http.MethodGet, bootURL("1"))
	require.Equal(t, http.StatusOK, status, body)
	var refused struct{ Code, Error string }
	d.admin(http.MethodPost, "/authority/rotate", `{"root":true}`, http.StatusConflict, &refused)
	require.Equal(t, "cannot_rotate", refused.Code)
	require.Contains(t, refused.Error, "Corporate issuing CA (imported)")
}

// TestT13_CertificatesBesideAnImportedAuthority registers what the authority
// that issues for bootd has issued for others. What it issued for sets is
// judged as theirs, whatever is registered.
func TestT13_CertificatesBesideAnImportedAuthority(t *testing.T) {
	corp := newCorporate(t, "Corporate CA")
	d := newDaemon(t, "authority: {certificate: ca.pem, key: ca.pem}\n")
	d.write("ca.pem", pairPEM(t, corp.issue(x509.Certificate{
		Subject: pkix.Name{CommonName: "Corporate issuing CA"}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}, false)))
	d.start()
	ask := func(cert tls.Certificate) string {
		c := d.clientWith(cert)
		c.Transport.(*http.Transport).TLSClientConfig.RootCAs = d.roots(1)
		status, body := d.ask(c, http.MethodGet, bootURL("1"))
		code := strings.Split(body, "\n")[0]
		explained := d.explain(cert)
		require.Equal(t, status == http.StatusOK, explained.Identity != nil)
		if status != http.StatusOK {
			require.Equal(t, code, explained.Code)
		}
		return fmt.Sprint(status, " ", code)
	}
	node, guest := corp.machine("node-7"), corp.machine("guest")
	server := corp.server("node-7")
	d.create(`{"name":"rack1"}`)
	path := filepath.Join(d.dir, "state/sets/rack1-1/client.pem")
	set, err := tls.LoadX509KeyPair(path, path)
	require.NoError(t, err)
	require.Equal(t, "403 unknown-set", ask(node))

	d.post("/trusted_certificates", "trusted_certificate", asked{"name": "node7", "kind": "pin", "pem": certPEM(node.Certificate[0])})
	require.Equal(t, "200 #!ipxe", ask(node))
	require.Equal(t, "403 unknown-set", ask(guest))
	d.post("/trusted_certificates", "trusted_certificate", asked{"name": "corp", "kind": "ca", "pem": corp.pem(), "allow": []string{"CN=node-*", "CN=rack*"}})
	require.Equal(t, "200 #!ipxe", ask(corp.machine("node-8")))
	require.Equal(t, "403 not-allowed", ask(guest), "the refusal that came closest")
	require.Equal(t, "403 wrong-usage", ask(server))

	require.Equal(t, "200 #!ipxe", ask(set))
	d.admin(http.MethodDelete, "/ipxe_boot_artifacts/1", "", http.StatusOK, nil)
	require.Equal(t, "403 revoked", ask(set), "its authority is registered, and that must not bring it back")
	name, err := url.Parse("urn:nestboot:set:rack1")
	require.NoError(t, err)
	forged := corp.issue(x509.Certificate{
		Subject: pkix.Name{CommonName: "rack1"}, URIs: []*url.URL{name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, false)
	require.Equal(t, "403 unknown-set", ask(forged))
}

// explained is the answer to auth/explain.
type explained struct {
	Identity *struct{ Kind string }
	Code     string
	Steps    []pki.Step
}

// explain asks what a client with a certificate would be answered.
func (d *running) explain(cert tls.Certificate) (e explained) {
	d.t.Helper()
	body, err := json.Marshal(asked{"certificate": certPEM(cert.Certificate...)})
	require.NoError(d.t, err)
	d.admin(http.MethodPost, "/auth/explain", string(body), http.StatusOK, &e)
	return e
}
