package httpboot

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/pki"
)

var update = flag.Bool("update", false, "write the golden files")

// ecLeaf is a P-256 server certificate, as the one that stands beside the RSA
// one.
func ecLeaf(t *testing.T) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tpl := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{"boot.test", "ipxe.test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// TestT10_OfferedVersionsAndSuites offers one version and suite at a time.
func TestT10_OfferedVersionsAndSuites(t *testing.T) {
	w := start(t)
	w.ec = ecLeaf(t)
	var got strings.Builder
	for _, port := range []struct{ title, addr, sni string }{
		{"https, ipxe.test", w.secure, "ipxe.test"},
		{"https, boot.test", w.secure, "boot.test"},
		{"https, no name", w.secure, ""},
		{"legacy, boot.test", w.old, "boot.test"},
		{"legacy, no name", w.old, ""},
		{"legacy, ipxe.test", w.old, "ipxe.test"},
	} {
		lines := scan(t, port.addr, port.sni)
		if len(lines) == 0 {
			lines = []string{"nothing"}
		}
		fmt.Fprintf(&got, "%s:\n  %s\n", port.title, strings.Join(lines, "\n  "))
	}
	const golden = "testdata/tls-suites.golden"
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(got.String()), 0o600))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), got.String())
}

func scan(t *testing.T, addr, sni string) (lines []string) {
	t.Helper()
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
			if (version == tls.VersionTLS13) != (s.SupportedVersions[0] == tls.VersionTLS13) {
				continue
			}
			c, err := tls.Dial("tcp", addr, &tls.Config{
				MinVersion: version, MaxVersion: version, CipherSuites: []uint16{s.ID}, ServerName: sni, InsecureSkipVerify: true,
			})
			if err != nil {
				continue
			}
			state := c.ConnectionState()
			require.NoError(t, c.Close())
			line := fmt.Sprintf("%s %s, %s leaf", tls.VersionName(version), tls.CipherSuiteName(state.CipherSuite), state.PeerCertificates[0].PublicKeyAlgorithm)
			if !slices.Contains(lines, line) { // TLS 1.3 chooses by itself
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// TestT10_LegacyListenerServesArtifactsOnly speaks to it as OVMF 2022.11 does.
func TestT10_LegacyListenerServesArtifactsOnly(t *testing.T) {
	w := start(t)
	w.who.give(pki.KindUEFI, "firmware", uefiToken, time.Time{}, "https")
	w.who.give(pki.KindURL, "chain", chainToken, time.Time{}, "https")
	c := w.client(client{config: &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: legacySuites}, addr: w.old})
	for path, status := range map[string]int{
		"/rack1/snponly.efi": http.StatusOK, "/artifacts/" + testToken + "/rack1.iso": http.StatusOK, "/uefi/" + uefiToken + "/rack1.efi": http.StatusOK,
		"/rack1/autoexec.ipxe": http.StatusForbidden, "/chain/" + chainToken: http.StatusNotFound, testQuery: http.StatusNotFound,
		"/ipxe/ignition": http.StatusNotFound, "/ipxe/done": http.StatusNotFound, "/ipxe/images/lab/vmlinuz": http.StatusNotFound,
	} {
		require.Equal(t, status, w.do(c, http.MethodGet, "https://boot.test"+path).status, path)
	}
	require.Equal(t, http.StatusMisdirectedRequest, w.do(c, http.MethodGet, "https://boot.test/rack1/snponly.efi", "Host", "ipxe.test").status)
	_, err := tls.Dial("tcp", w.secure, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: legacySuites, ServerName: "boot.test", InsecureSkipVerify: true})
	require.Error(t, err, "only there")
}

// TestT11_HostThatIsGoneIsRefused drops a host name under an open connection.
func TestT11_HostThatIsGoneIsRefused(t *testing.T) {
	w := start(t)
	c := w.client(client{cert: w.setCert()})
	require.Equal(t, http.StatusOK, w.do(c, http.MethodGet, "https://ipxe.test"+testQuery).status)
	w.dropped.Store(true)
	require.Equal(t, http.StatusMisdirectedRequest, w.do(c, http.MethodGet, "https://ipxe.test"+testQuery).status)
	_, err := tls.Dial("tcp", w.secure, &tls.Config{ServerName: "ipxe.test", InsecureSkipVerify: true})
	require.Error(t, err)
	w.event(boot.StageTLS, `the name "ipxe.test" answers no more: its generation was dropped`)
}

// TestHandshakesAreExplained: what a machine that trusts another root does looks
// different by version and library.
func TestHandshakesAreExplained(t *testing.T) {
	for _, tt := range []struct {
		op, text string
		want     bool
	}{
		{"remote error", "tls: unknown certificate authority", true},
		{"local error", "tls: bad record MAC", true},
		{"local error", "tls: protocol version not supported", false},
	} {
		got := explainTLS(fmt.Errorf("handshake: %w", &net.OpError{Op: tt.op, Err: errors.New(tt.text)}))
		require.Equal(t, tt.want, strings.Contains(got, "trusts another root"), got)
	}
}

// TestTwoHostsForMachines has one trust root each: scripts lead back to the
// host that was asked.
func TestTwoHostsForMachines(t *testing.T) {
	w := start(t)
	cfg := &tls.Config{InsecureSkipVerify: true}
	c := w.client(client{cert: w.setCert(), config: cfg})
	for host, generation := range map[string]int{"ipxe.test": 1, "ipxe-2.test": 2} {
		a := w.do(c, http.MethodGet, "https://"+host+testQuery)
		require.Contains(t, a.body, "kernel --name vmlinuz https://"+host+"/ipxe/images/")
		w.mu.Lock()
		require.Equal(t, generation, w.came.Generation)
		require.Equal(t, boot.Credential{
			Kind: "set", Name: "rack1", Set: "rack1", Subject: w.set.Certificate.Subject.CommonName,
			Generation: generation, Fingerprint: w.came.Fingerprint,
		}, w.came)
		w.mu.Unlock()
	}
	a := w.do(c, http.MethodGet, "https://ipxe.test"+testQuery, "Host", "ipxe-2.test")
	require.Equal(t, http.StatusMisdirectedRequest, a.status, "also between the two")
}

func TestPortsAnswerWhatTheyAreFor(t *testing.T) {
	w := start(t)
	_, err := tls.Dial("tcp", w.plain, &tls.Config{InsecureSkipVerify: true})
	require.Error(t, err)
	conn, err := tls.Dial("tcp", w.old, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: legacySuites, InsecureSkipVerify: true})
	require.NoError(t, err)
	_, err = io.WriteString(conn, "GET /rack1/snponly.efi HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode, "firmware may ask by address, without SNI")
	require.NoError(t, res.Body.Close())
	require.NoError(t, conn.Close())
}
