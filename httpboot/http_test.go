package httpboot

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/pki"
)

func TestImagesKnowRangeETagAndHead(t *testing.T) {
	w := start(t)
	c := w.client(client{cert: w.setCert()})
	const url = "https://ipxe.test/ipxe/images/lab/vmlinuz"
	data, err := os.ReadFile(w.imagePath)
	require.NoError(t, err)
	etag := `"` + digest(data) + `"`

	a := w.do(c, http.MethodHead, url)
	require.Equal(t, http.StatusOK, a.status)
	require.Equal(t, fmt.Sprint(len(data)), a.header.Get("Content-Length"))
	require.Equal(t, etag, a.header.Get("ETag"))

	a = w.do(c, http.MethodGet, url, "Range", "bytes=2-4")
	require.Equal(t, http.StatusPartialContent, a.status)
	require.Equal(t, string(data[2:5]), a.body)
	require.Equal(t, http.StatusNotModified, w.do(c, http.MethodGet, url, "If-None-Match", etag).status)
	require.Equal(t, http.StatusRequestedRangeNotSatisfiable, w.do(c, http.MethodGet, url, "Range", "bytes=99999999-").status)
	require.Equal(t, http.StatusMethodNotAllowed, w.do(c, http.MethodPut, url).status)
	require.Equal(t, http.StatusNotFound, w.do(c, http.MethodGet, url+"x").status)

	require.NoError(t, os.Remove(w.imagePath))
	require.Equal(t, http.StatusServiceUnavailable, w.do(c, http.MethodGet, url).status, "a fault that may pass is a 5xx")
	w.event(boot.StageKernel, "image-unreadable")
}

func TestT08_ManyRangesAreOneAnswer(t *testing.T) {
	w := start(t)
	c := w.client(client{cert: w.setCert()})
	const url = "https://ipxe.test/ipxe/images/lab/vmlinuz"
	a := w.do(c, http.MethodGet, url, "Range", "bytes="+strings.Repeat("0-0,", 1000)+"0-0")
	require.Equal(t, http.StatusOK, a.status)
	require.Len(t, a.body, 4<<20, "a list of ranges is answered with the file, once")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Range", "bytes="+strings.Repeat("0-0,", 170_000)+"0-0")
	res, err := c.Do(req)
	if err == nil { // the server may hang up before the client has sent it all
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Less(t, len(body), 100, "no amplification")
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, res.StatusCode)
	}
}

func TestHostMustBeTheNameThatTLSWasSpokenTo(t *testing.T) {
	w := start(t)
	c := w.client(client{cert: w.setCert()})
	for _, tt := range []struct {
		url, host string
		status    int
	}{
		{"https://boot.test/ipxe/boot", "ipxe.test", http.StatusMisdirectedRequest},
		{"https://ipxe.test" + testQuery, "boot.test", http.StatusMisdirectedRequest},
		{"https://ipxe.test" + testQuery, "other.test", http.StatusMisdirectedRequest},
		{"https://ipxe.test" + testQuery, "IPXE.test:443", http.StatusOK},
		{"https://boot.test/rack1/snponly.efi", "127.0.0.1", http.StatusMisdirectedRequest},
		{"https://127.0.0.1/rack1/snponly.efi", "127.0.0.1", http.StatusOK}, // no SNI for an address
		{"https://127.0.0.1/rack1/snponly.efi", "ipxe.test", http.StatusMisdirectedRequest},
	} {
		require.Equal(t, tt.status, w.do(c, http.MethodGet, tt.url, "Host", tt.host).status, "%s with Host %s", tt.url, tt.host)
	}
}

func TestNamesRequestCertificatesOrDoNot(t *testing.T) {
	w := start(t)
	for name, want := range map[string]bool{"ipxe.test": true, "boot.test": false} {
		asked := false
		c := w.client(client{config: &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			return w.setCert(), nil
		}}})
		w.do(c, http.MethodGet, "https://"+name+"/x")
		require.Equal(t, want, asked, name)
	}
}

func TestT01_TraversalFindsNothing(t *testing.T) {
	w := start(t)
	c := w.client(client{cert: w.setCert()})
	for _, path := range []string{
		"/../etc/passwd", "/rack1/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/rack1/..%2fautoexec.ipxe", `/rack1\autoexec.ipxe`,
		"//etc/passwd", "/rack1/snponly.efi/", "/rack1/./snponly.efi", "/rack1/snponly.efi%00", "/rack1", "/", "/RACK1/snponly.efi",
		"/ipxe/images/lab/../lab/vmlinuz", "/ipxe/images/lab/%2e%2e/vmlinuz", "/ipxe/images//vmlinuz", "/ipxe/images/lab/vmlinuz/", "/ipxe/images/lab",
	} {
		for _, host := range []string{"boot.test", "ipxe.test"} {
			require.Equal(t, http.StatusNotFound, w.do(c, http.MethodGet, "https://"+host+path).status, "%s%s", host, path)
		}
		require.Equal(t, http.StatusNotFound, w.do(http.DefaultClient, http.MethodGet, "http://"+w.plain+path).status, path)
	}
}

func TestT14_KeysLeaveOnlyWhereTheOperatorSaysSo(t *testing.T) {
	w := start(t)
	c := w.client(client{cert: w.setCert()})
	plain, secure := "http://"+w.plain+"/rack1/autoexec.ipxe", "https://boot.test/rack1/autoexec.ipxe"
	clients := map[string]*http.Client{plain: http.DefaultClient, secure: c}
	for _, url := range []string{plain, secure} {
		a := w.do(clients[url], http.MethodGet, url)
		require.Equal(t, http.StatusForbidden, a.status, url)
		require.Contains(t, a.body, "key-not-exposed\n")
		require.Contains(t, a.body, "it holds a private key: do this\n", "the client is told the remedy")
		w.event(boot.StageKey, "do this")
	}
	require.Equal(t, http.StatusForbidden, w.do(http.DefaultClient, http.MethodHead, plain).status)
	w.recorded(boot.StageKey, 3, "UEFI HTTP Boot asks by HEAD first, and for nothing more when that is refused")
	w.exposed.Store(true)
	require.Equal(t, "#!ipxe key", w.do(http.DefaultClient, http.MethodGet, plain).body)
	require.Equal(t, http.StatusForbidden, w.do(c, http.MethodGet, secure).status, "HTTPS asks for no proof here, so it gives no key")
	require.Equal(t, "MZ binary", w.do(http.DefaultClient, http.MethodGet, "http://"+w.plain+"/rack1/snponly.efi").body)
	require.Equal(t, "9", w.do(http.DefaultClient, http.MethodHead, "http://"+w.plain+"/rack1/snponly.efi").header.Get("Content-Length"))
}

func TestDownloadAddressHasAToken(t *testing.T) {
	w := start(t)
	c := w.client(client{})
	const dir = "https://boot.test/artifacts/"
	a := w.do(c, http.MethodGet, dir+testToken+"/rack1.iso")
	require.Equal(t, http.StatusOK, a.status)
	require.Equal(t, "an image", a.body)
	require.Equal(t, "no-store", a.header.Get("Cache-Control"))
	require.Equal(t, `"`+digest([]byte("an image"))+`"`, a.header.Get("ETag"))
	require.Equal(t, "rack1.iso", w.event(boot.StageArtifact, "by its download address").Name)
	require.Equal(t, "8", w.do(c, http.MethodHead, dir+testToken+"/rack1.iso").header.Get("Content-Length"))
	a = w.do(c, http.MethodGet, dir+testToken+"/rack1.raw")
	require.Equal(t, http.StatusForbidden, a.status)
	require.Equal(t, "set-expired\nset rack1 expired\n", a.body)
	require.Equal(t, http.StatusForbidden, w.do(c, http.MethodHead, dir+testToken+"/rack1.raw").status)
	w.recorded(boot.StageArtifact, 3, "one that was sent and two refusals; not the HEAD that was answered")
	require.Equal(t, http.StatusMethodNotAllowed, w.do(c, http.MethodPut, dir+testToken+"/rack1.iso").status)
}

// TestT19_TokensOfAddressesAreNotRecorded asks with a wrong token, with none,
// and with a good one in the wrong place.
func TestT19_TokensOfAddressesAreNotRecorded(t *testing.T) {
	w := start(t)
	c := w.client(client{})
	wrong := strings.Repeat("w", 43)
	for _, path := range []string{wrong + "/rack1.iso", testToken + "/gone.iso", "x/" + testToken, testToken, testToken + "/", "/rack1.iso", ""} {
		require.Equal(t, http.StatusNotFound, w.do(c, http.MethodGet, "https://boot.test/artifacts/"+path).status, path)
		require.Equal(t, http.StatusNotFound, w.do(http.DefaultClient, http.MethodGet, "http://"+w.plain+"/artifacts/"+path).status, "only over HTTPS")
		require.Equal(t, http.StatusNotFound, w.do(w.client(client{cert: w.setCert()}), http.MethodGet, "https://ipxe.test/artifacts/"+path).status, "only under its name")
	}
	require.Equal(t, http.StatusOK, w.do(c, http.MethodGet, "https://boot.test/artifacts/"+testToken+"/rack1.iso").status)
	require.Equal(t, pki.CodeUnknownToken, w.event(boot.StageArtifact, "no set has the token").Code)
	w.noSecrets("."+testToken, "."+wrong)
}

func TestSetMayBeLimitedToMachines(t *testing.T) {
	w := start(t)
	w.limited = true
	c := w.client(client{cert: w.setCert()})
	require.Equal(t, http.StatusOK, w.do(c, http.MethodGet, "https://ipxe.test"+testQuery).status)
	const other = "4c4c4544-0042-3510-8052-b4c04f560000"
	a := w.do(c, http.MethodGet, "https://ipxe.test"+strings.ReplaceAll(testQuery, testUUID, other))
	require.Equal(t, answer{http.StatusForbidden, CodeMachineNotInSet + "\n", a.header}, a)
	e := w.event(boot.StageScript, CodeMachineNotInSet)
	require.Contains(t, e.Detail, other)
	require.Equal(t, "rack1", e.Name)
	require.Empty(t, e.Machine, "it is not that machine's boot")
}

// TestT12_RevokedSetIsRefusedOnOpenConnections deletes one of two sets, as
// seen from connections that are open already.
func TestT12_RevokedSetIsRefusedOnOpenConnections(t *testing.T) {
	w := start(t)
	second, err := w.authority.IssueMachine(t.Context(), "rack2", time.Time{})
	require.NoError(t, err)
	one := w.client(client{cert: w.setCert()})
	two := w.client(client{cert: &tls.Certificate{Certificate: [][]byte{second.Certificate.Raw}, PrivateKey: second.Key}})
	for _, c := range []*http.Client{one, two} {
		require.Equal(t, http.StatusOK, w.do(c, http.MethodGet, "https://ipxe.test"+testQuery).status)
	}
	_, err = w.authority.RevokeSet(t.Context(), "rack1")
	require.NoError(t, err)
	for _, path := range []string{testQuery, "/ipxe/images/lab/vmlinuz", "/ipxe/initrd/b00t"} {
		a := w.do(one, http.MethodGet, "https://ipxe.test"+path)
		require.Equal(t, answer{http.StatusForbidden, "revoked\n", a.header}, a, path)
	}
	require.Equal(t, http.StatusOK, w.do(two, http.MethodGet, "https://ipxe.test"+testQuery).status, "the other set's machines boot")
}

func TestT09_OnlyHTTP11(t *testing.T) {
	w := start(t)
	cfg := &tls.Config{NextProtos: []string{"h2", "http/1.1"}, ServerName: "ipxe.test", InsecureSkipVerify: true}
	c, err := tls.Dial("tcp", w.secure, cfg)
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	require.Equal(t, "http/1.1", c.ConnectionState().NegotiatedProtocol)
	_, err = tls.Dial("tcp", w.secure, &tls.Config{NextProtos: []string{"h2"}, ServerName: "ipxe.test", InsecureSkipVerify: true})
	require.ErrorContains(t, err, "no application protocol")
}

func TestT11_SessionsAreNotResumed(t *testing.T) {
	w := start(t)
	cache := tls.NewLRUClientSessionCache(8)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for range 2 {
			c := w.client(client{cert: w.setCert(), config: &tls.Config{ClientSessionCache: cache, MaxVersion: version}})
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://ipxe.test"+testQuery, http.NoBody)
			require.NoError(t, err)
			res, err := c.Do(req)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			require.False(t, res.TLS.DidResume)
		}
	}
}

func TestT12_CredentialIsCheckedAtEachRequest(t *testing.T) {
	w := start(t)
	c := w.client(client{cert: w.setCert()})
	require.Equal(t, http.StatusOK, w.do(c, http.MethodGet, "https://ipxe.test"+testQuery).status)
	w.skew.Store(int64(2 * 365 * 24 * time.Hour)) // the connection stays open while the certificate ends
	a := w.do(c, http.MethodGet, "https://ipxe.test"+testQuery)
	require.Equal(t, answer{http.StatusForbidden, "expired\n", a.header}, a)
}

func TestT15_ForeignTrustIsSeen(t *testing.T) {
	w := start(t)
	_, err := tls.Dial("tcp", w.secure, &tls.Config{ServerName: "ipxe.test"}) // does not know our root, as a foreign artifact
	require.Error(t, err)
	e := w.event(boot.StageTLS, "trusts another root")
	require.Equal(t, "tls-failed", e.Code)
	require.Equal(t, "ipxe.test", e.Name)

	_, err = tls.Dial("tcp", w.secure, &tls.Config{ServerName: "unknown.test"})
	require.Error(t, err)
	w.event(boot.StageTLS, `no server has the name "unknown.test"`)
}

func TestT07_SlowConnectionsDoNotStarveOthers(t *testing.T) {
	w := start(t)
	var d net.Dialer
	open := 0
	for n := range 4 * maxConnsPerAddr {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(n%3))}
		c, err := d.DialContext(t.Context(), "tcp", w.plain)
		require.NoError(t, err)
		defer func() { _ = c.Close() }()
		_, err = io.WriteString(c, "GET / HTTP/1.1\r\nX")
		if err == nil {
			open++
		}
	}
	require.Positive(t, open)
	start := time.Now()
	require.Equal(t, "MZ binary", w.do(http.DefaultClient, http.MethodGet, "http://"+w.plain+"/rack1/snponly.efi").body)
	require.Less(t, time.Since(start), 2*time.Second)
}

func TestHTTP10ClientMayKeepItsConnection(t *testing.T) {
	w := start(t)
	c, err := net.Dial("tcp", w.plain)
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	for range 2 {
		_, err = io.WriteString(c, "GET /rack1/snponly.efi HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
		require.NoError(t, err)
		res, err := http.ReadResponse(r, nil)
		require.NoError(t, err)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, "MZ binary", string(body))
	}
}

func TestStopLetsARunningDownloadEnd(t *testing.T) {
	w := start(t)
	c := w.client(client{cert: w.setCert()})
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://ipxe.test/ipxe/images/lab/vmlinuz", http.NoBody)
	require.NoError(t, err)
	res, err := c.Do(req)
	require.NoError(t, err)
	w.cancel()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", w.secure)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, 5*time.Second, 5*time.Millisecond, "no new connection is taken")
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Len(t, body, 4<<20)
}

// faulty is a file of which no more than the first byte can be read.
type faulty struct{ io.ReadSeeker }

func (f faulty) Read(b []byte) (int, error) {
	if len(b) == 1 {
		return f.ReadSeeker.Read(b)
	}
	return 0, errors.New("input/output error")
}

func TestWhoseFaultAnEndIs(t *testing.T) {
	w := start(t)
	open := w.server.Site.Image
	c := w.client(client{cert: w.setCert()})
	const url = "https://ipxe.test/ipxe/images/lab/vmlinuz"
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	res, err := c.Do(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close()) // in the middle of 4 MiB
	w.event(boot.StageKernel, "client-left")

	broken := start(t)
	broken.server.Site.Image = func(image, file string) (ImageFile, bool) {
		f, ok := open(image, file)
		f.Open = func() (io.ReadSeeker, error) { return faulty{bytes.NewReader(make([]byte, 10))}, nil }
		return f, ok
	}
	req, err = http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	res, err = broken.client(client{cert: broken.setCert()}).Do(req)
	if err == nil {
		_, err = io.ReadAll(res.Body)
		require.NoError(t, res.Body.Close())
	}
	require.Error(t, err, "a part is not taken for the whole")
	broken.event(boot.StageKernel, "input/output error")
}

// tired is a listener that is out of file descriptors for a while.
type tired struct {
	net.Listener
	failures atomic.Int32
}

func (l *tired) Accept() (net.Conn, error) {
	if l.failures.Add(-1) >= 0 {
		return nil, syscall.EMFILE
	}
	return l.Listener.Accept()
}

func TestT04_FailedAcceptDoesNotEndTheServer(t *testing.T) {
	w := start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	out := &tired{Listener: l}
	out.failures.Store(3)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.server.Serve(ctx, plain, out, nil) }()
	w.secure = l.Addr().String()
	require.Equal(t, http.StatusOK, w.do(w.client(client{cert: w.setCert()}), http.MethodGet, "https://ipxe.test"+testQuery).status)
	cancel()
	require.NoError(t, <-done)
}

func TestT07_OneIPv6NetworkCountsAsOneAddress(t *testing.T) {
	for addr, want := range map[string]string{"10.0.0.1": "10.0.0.1", "fd00:77::1": "fd00:77::", "fd00:77::ffff:1": "fd00:77::", "fd00:78::1": "fd00:78::"} {
		require.Equal(t, want, network(netip.MustParseAddr(addr)).String())
	}
}

// TestT19_TokensAreNotCutInHalf puts them where a message would end: what is
// taken for a token is taken out of events by its length.
func TestT19_TokensAreNotCutInHalf(t *testing.T) {
	w := start(t)
	w.who.give(pki.KindURL, "chain", chainToken, time.Time{}, "https")
	c := w.client(client{})
	_, err := tls.Dial("tcp", w.secure, &tls.Config{ServerName: strings.Repeat("a", 37) + "." + testToken, InsecureSkipVerify: true})
	require.Error(t, err)
	w.event(boot.StageTLS, "no server has the name")
	a := w.do(c, http.MethodGet, "https://boot.test/chain/"+chainToken+"/ipxe/images/"+strings.Repeat("y", 70)+"/z/chain/"+testToken)
	require.Equal(t, http.StatusNotFound, a.status)
	a = w.do(c, http.MethodGet, "https://boot.test/chain/"+chainToken+"/ipxe/boot?mac=52-54-00-00-00-01&arch=x86_64&platform=efi&uuid="+testToken)
	require.Equal(t, http.StatusOK, a.status, "the console tells")
	require.NotContains(t, a.body, testToken[:20])
	w.event(boot.StageScript, "is not a UUID")
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		require.NotContains(t, e.Error+e.Detail, testToken[:20])
		require.NotContains(t, strings.ToLower(e.Error+e.Detail), strings.ToLower(testToken[:20]))
	}
}
