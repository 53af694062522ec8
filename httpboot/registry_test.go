package httpboot

import (
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/pki"
)

// download is one whose client does not take more than the first bytes: the
// server hangs in the middle of it.
type download struct {
	body io.Reader
	left int64
	last bool // the server closes the connection after it
}

func (w *world) begin(c *http.Client, url string) download {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(w.t, err)
	res, err := c.Do(req)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = res.Body.Close() })
	require.Equal(w.t, http.StatusOK, res.StatusCode)
	n, err := io.ReadFull(res.Body, make([]byte, 100))
	require.NoError(w.t, err)
	return download{res.Body, res.ContentLength - int64(n), res.Close}
}

// ends reads the rest.
func (w *world) ends(d download, why string) {
	w.t.Helper()
	n, err := io.Copy(io.Discard, d.body)
	require.NoError(w.t, err, why)
	require.Equal(w.t, d.left, n, why)
}

// dies demands that a download ends within a second and before its end.
func (w *world) dies(d download, since time.Time) {
	w.t.Helper()
	n, err := io.Copy(io.Discard, d.body)
	require.Error(w.t, err, "after %d bytes", n)
	require.Less(w.t, n, d.left)
	require.Less(w.t, time.Since(since), time.Second)
}

func (w *world) plainClient() *http.Client {
	tr := &http.Transport{DialContext: (&net.Dialer{}).DialContext}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// TestT12_ConnectionsAreCutWithTheirCredential has a download and an idle
// connection of each kind of credential, and a bystander.
func TestT12_ConnectionsAreCutWithTheirCredential(t *testing.T) {
	w := start(t)
	w.server.Site.Image = func(string, string) (ImageFile, bool) { return bigImage(), true }
	byURL := w.who.give(pki.KindURL, "provider-a", chainToken, time.Time{}, "https", "http")
	byUEFI := w.who.give(pki.KindUEFI, "firmware", uefiToken, time.Time{}, "https", "http")
	set, err := w.authority.Verify([]*x509.Certificate{w.set.Certificate}, time.Now())
	require.NoError(t, err)
	cert, none := client{cert: w.setCert()}, client{}
	for name, tt := range map[string]struct {
		id    pki.Identity
		stage boot.Stage
		url   string
		dial  func() *http.Client
	}{
		"set":         {set, boot.StageInitrd, "https://ipxe.test/ipxe/images/lab/initrd", func() *http.Client { return w.client(cert) }},
		"chain https": {byURL, boot.StageInitrd, "https://boot.test/chain/" + chainToken + "/ipxe/images/lab/initrd", func() *http.Client { return w.client(none) }},
		"chain http":  {byURL, boot.StageInitrd, "http://" + w.plain + "/chain/" + chainToken + "/ipxe/images/lab/initrd", w.plainClient},
		"uefi https":  {byUEFI, boot.StageArtifact, "https://boot.test/uefi/" + uefiToken + "/rack1.efi", func() *http.Client { return w.client(none) }},
		"uefi http":   {byUEFI, boot.StageArtifact, "http://" + w.plain + "/uefi/" + uefiToken + "/rack1.efi", w.plainClient},
	} {
		t.Run(name, func(t *testing.T) {
			w.who.allow(tt.id)
			idle, running := tt.dial(), w.begin(tt.dial(), tt.url)
			require.Equal(t, http.StatusOK, w.do(idle, http.MethodHead, tt.url).status)
			other := w.begin(w.plainClient(), "http://"+w.plain+"/rack1/big")
			before := w.count(boot.StageCutOff)

			at := time.Now()
			w.who.refuse(tt.id.Fingerprint, pki.CodeRevoked)
			w.dies(running, at)
			require.Eventually(t, func() bool { return w.count(boot.StageCutOff) == before+2 }, time.Second, time.Millisecond, "both connections")
			who := credentialOf(tt.id, 0).String()
			e := w.event(boot.StageCutOff, pki.CodeRevoked)
			require.Equal(t, [2]string{tt.id.Name, who}, [2]string{e.Name, e.Credential})
			e = w.event(tt.stage, "cut off")
			require.Equal(t, [2]string{pki.CodeRevoked, who}, [2]string{e.Code, e.Credential})
			require.Positive(t, e.Bytes)
			a := w.do(idle, http.MethodGet, tt.url)
			require.Equal(t, answer{http.StatusForbidden, "revoked\n", a.header}, a)

			w.ends(other, "who has shown nothing goes on")
		})
	}
	w.noSecrets("."+chainToken, "."+uefiToken)
}

// TestT12_DownloadEndsWithItsCredential lets the time of a credential run out.
func TestT12_DownloadEndsWithItsCredential(t *testing.T) {
	w := start(t)
	w.who.give(pki.KindUEFI, "short", uefiToken, time.Now().Add(1500*time.Millisecond), "http")
	res := w.begin(w.plainClient(), "http://"+w.plain+"/uefi/"+uefiToken+"/rack1.efi")
	w.event(boot.StageCutOff, pki.CodeExpired)
	w.dies(res, time.Now())
	require.Equal(t, pki.CodeExpired, w.event(boot.StageArtifact, "cut off").Code)
}

// TestT12_CredentialEndsWhileTheServerStops: what runs out during Grace is cut off
// then too.
func TestT12_CredentialEndsWhileTheServerStops(t *testing.T) {
	w := start(t)
	w.who.give(pki.KindUEFI, "short", uefiToken, time.Now().Add(1500*time.Millisecond), "http")
	res := w.begin(w.plainClient(), "http://"+w.plain+"/uefi/"+uefiToken+"/rack1.efi")
	w.cancel()
	w.event(boot.StageCutOff, pki.CodeExpired)
	w.dies(res, time.Now())
}

// TestT12_ThousandConnectionsAreCutAtOnce asks about each credential once.
func TestT12_ThousandConnectionsAreCutAtOnce(t *testing.T) {
	s := &Server{Now: time.Now, Site: Site{}}
	var w who
	s.Site.Good, s.Site.Record, s.Log = w.good, func(boot.Event) {}, slog.New(slog.DiscardHandler)
	id := w.give(pki.KindURL, "a", chainToken, time.Time{})
	var clients []net.Conn
	for range 1000 {
		client, server := net.Pipe()
		c := s.track(server, func(*conn) {})
		require.True(t, s.shown.show(c, id))
		clients = append(clients, client)
	}
	w.refuse(id.Fingerprint, pki.CodeRevoked)
	start := time.Now()
	s.cut(t.Context(), func(pki.Identity) bool { return true })
	require.Less(t, time.Since(start), time.Second)
	require.Equal(t, 1, int(w.asked.Load()))
	for _, c := range clients {
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	}
	require.Empty(t, s.shown.by)
	require.Empty(t, s.shown.last, "nothing is left behind")
}

func TestRegistryKnowsTheLastCredentialOnly(t *testing.T) {
	s := &Server{Now: time.Now}
	var w who
	one, two := w.give(pki.KindURL, "one", "1", time.Time{}), w.give(pki.KindURL, "two", "2", time.Time{})
	_, raw := net.Pipe()
	given := 0
	c := s.track(raw, func(*conn) { given++ })
	require.True(t, s.shown.show(c, one))
	require.True(t, s.shown.show(c, one))
	require.True(t, s.shown.show(c, two))
	require.Empty(t, s.shown.holding(one))
	require.Equal(t, []*conn{c}, s.shown.holding(two))
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	require.Equal(t, 1, given, "its place is given back once")
	require.False(t, s.shown.show(c, one), "what is closed is not entered again")
	require.Empty(t, s.shown.by)
	require.Empty(t, s.shown.last)
}

// TestT12_WatchAsksWhenItMust counts what the watch asks: at a change, at the
// end of a credential, and once a minute.
func TestT12_WatchAsksWhenItMust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w who
		s := &Server{Now: time.Now, Log: slog.New(slog.DiscardHandler), Site: Site{Good: w.good, Changed: w.changes, Record: func(boot.Event) {}}}
		forever := w.give(pki.KindURL, "forever", "1", time.Time{})
		short := w.give(pki.KindURL, "short", "2", time.Now().Add(30*time.Second))
		open := func(id pki.Identity) *conn {
			_, raw := net.Pipe()
			c := s.track(raw, func(*conn) {})
			require.True(t, s.shown.show(c, id))
			return c
		}
		a, b := open(forever), open(short)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.watch(ctx) })
		synctest.Wait()
		require.Equal(t, 2, int(w.asked.Load()))
		time.Sleep(30 * time.Second)
		synctest.Wait()
		require.Nil(t, b.cut.Load())
		require.Equal(t, 2, int(w.asked.Load()), "nothing has changed")
		time.Sleep(endEvery)
		synctest.Wait()
		require.Equal(t, pki.CodeExpired, b.cut.Load().code)
		require.Equal(t, 3, int(w.asked.Load()))
		time.Sleep(askEvery)
		synctest.Wait()
		require.Equal(t, 4, int(w.asked.Load()), "for what changes with the time alone")
		require.Nil(t, a.cut.Load())
		w.refuse(forever.Fingerprint, pki.CodeRevoked)
		synctest.Wait()
		require.Equal(t, pki.CodeRevoked, a.cut.Load().code, "at once")
		cancel()
		running.Wait()
	})
}

// TestT12_ChangeWhileItIsShown revokes between the answer of Identify and the
// entry into the registry: the watch has passed by then.
func TestT12_ChangeWhileItIsShown(t *testing.T) {
	w := start(t)
	id := w.who.give(pki.KindURL, "a", chainToken, time.Time{}, "https")
	w.server.Site.IdentifyURL = func(kind pki.Kind, token, over string, at time.Time) (pki.Identity, error) {
		found, err := w.who.identifyURL(kind, token, over, at)
		w.who.mu.Lock()
		defer w.who.mu.Unlock()
		w.who.refused = map[pki.Digest]string{id.Fingerprint: pki.CodeRevoked} // nobody is told again
		return found, err
	}
	a := w.do(w.client(client{}), http.MethodGet, "https://boot.test/chain/"+chainToken)
	require.Equal(t, http.StatusForbidden, a.status)
	require.Equal(t, "revoked\n", a.body)
}

func TestConnectionHasAMaximumAge(t *testing.T) {
	w := start(t)
	w.server.MaxAge = time.Minute
	c := w.client(client{cert: w.setCert()})
	const url = "https://ipxe.test/ipxe/images/lab/vmlinuz"
	require.Equal(t, http.StatusOK, w.do(c, http.MethodHead, url).status)
	w.skew.Store(int64(time.Minute + time.Second))
	running := w.begin(c, url)
	require.True(t, running.last)
	w.ends(running, "it is not cut off")
	w.recorded(boot.StageTLS, 1, "one connection")
	require.Equal(t, http.StatusOK, w.do(c, http.MethodHead, url).status)
	w.recorded(boot.StageTLS, 2, "then another")
}

// bigImage is the same as a file of an image, as it lies on disk.
func bigImage() ImageFile {
	return ImageFile{SHA256: digest(bigFile), Open: func() (io.ReadSeeker, error) { return onDisk(bigFile) }}
}

// onDisk is a file that is gone when it is closed.
func onDisk(content []byte) (*io.SectionReader, error) {
	f, err := os.CreateTemp("", "nestboot-test-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, err
	}
	_, err = f.Write(content)
	return io.NewSectionReader(f, 0, int64(len(content))), err
}
