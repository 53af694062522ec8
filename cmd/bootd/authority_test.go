package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
