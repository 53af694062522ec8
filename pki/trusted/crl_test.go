package trusted

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
)

// withCRL is an authority whose list is read from a file.
func (w *world) withCRL(name, stale string, data []byte, certs ...*x509.Certificate) Spec {
	spec := caSpec(name, certs...)
	spec.CRL = &CRL{File: w.file(name+".crl", data), Stale: stale}
	return spec
}

func TestT12_RevocationList(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	sub := root.sub("issuing", nothing)
	good, bad := sub.issue("good", nothing), sub.issue("bad", nothing)
	hidden := root.sub("hidden", nothing)

	e := mustAdd(t, tr, w.withCRL("corp", "", append(sub.crl(start), root.crl(start)...), root.cert, sub.cert))
	require.Equal(t, StaleRefuse, e.CRL.Stale)
	require.Equal(t, []List{{Issuer: `"CN=corp"`, ThisUpdate: start, NextUpdate: start.Add(7 * day)}, {Issuer: `"CN=issuing"`, ThisUpdate: start, NextUpdate: start.Add(7 * day)}}, e.Lists)
	require.Empty(t, e.Faults)
	identity, err := tr.Verify(chain(bad), start)
	require.NoError(t, err)
	_, err = tr.Verify(chain(sub.cert), start)
	own := refusal(t, err).Identity
	require.Equal(t, pki.CodeWrongUsage, codeOf(t, tr.Good(own, start)), "an authority's own certificate has no issuer to ask about")
	require.NoError(t, tr.Good(identity, start))
	_, err = tr.Verify(chain(hidden.issue("m", nothing), hidden.cert), start)
	require.Equal(t, pki.CodeStaleCRL, codeOf(t, err))
	require.ErrorContains(t, err, `there is no revocation list of its issuer "CN=hidden"`)

	// It is revoked: new requests and open connections are refused.
	changed := tr.Changed()
	w.file("corp.crl", sub.crl(start.Add(time.Hour), bad))
	tr.poll(t.Context())
	require.True(t, rang(changed))
	_, err = tr.Verify(chain(bad), start)
	require.Equal(t, pki.CodeRevoked, codeOf(t, err))
	require.ErrorContains(t, err, `it is on the revocation list of "CN=issuing" of 2026-10-01 13:00:00`)
	require.Equal(t, pki.CodeRevoked, codeOf(t, tr.Good(identity, start)))
	_, err = tr.Verify(chain(good), start)
	require.NoError(t, err)

	// The intermediate itself is revoked, by a list of the root beside it.
	w.file("corp.crl", append(sub.crl(start.Add(time.Hour), bad), root.crl(start.Add(time.Hour), sub.cert)...))
	tr.poll(t.Context())
	_, err = tr.Verify(chain(good), start)
	require.Equal(t, pki.CodeRevoked, codeOf(t, err))
	require.ErrorContains(t, err, `"CN=issuing", which issued it, is on the revocation list of "CN=corp"`)
	_, err = tr.Verify(chain(root.issue("m", nothing)), start)
	require.NoError(t, err)
}

// TestT12_EveryIssuerNeedsAList: an intermediate is revoked by whoever issued it,
// so who has no list of that one cannot know.
func TestT12_EveryIssuerNeedsAList(t *testing.T) {
	w := newWorld(t)
	root := newCA(t, "corp", nothing)
	sub := root.sub("issuing", nothing)
	node := sub.issue("node", nothing)
	tr := w.open()
	_, err := tr.Add(t.Context(), w.withCRL("corp", "", sub.crl(start), root.cert, sub.cert))
	require.ErrorContains(t, err, `there is no list of "CN=corp", which may have revoked another`)
	e := mustAdd(t, tr, w.withCRL("corp", "", root.crl(start), root.cert))
	_, err = tr.Verify(chain(node, sub.cert), start)
	require.ErrorContains(t, err, `there is no revocation list of its issuer "CN=issuing"`)
	_, err = tr.Remove(t.Context(), e.ID)
	require.NoError(t, err)

	e = mustAdd(t, tr, w.withCRL("lenient", StaleAccept, sub.crl(start), root.cert, sub.cert))
	require.Contains(t, strings.Join(e.Faults, "; "), `no current revocation list`)
	_, err = tr.Verify(chain(node), start)
	require.NoError(t, err)
	_, err = tr.Remove(t.Context(), e.ID)
	require.NoError(t, err)

	e = mustAdd(t, tr, w.withCRL("both", "", append(sub.crl(start), root.crl(start)...), root.cert, sub.cert))
	_, err = tr.Verify(chain(node), start)
	require.NoError(t, err)
	mustAdd(t, tr, w.withCRL("alone", "", sub.crl(start), sub.cert))
	_, err = tr.Remove(t.Context(), e.ID)
	require.NoError(t, err)
	_, err = tr.Verify(chain(node), start)
	require.NoError(t, err, "who trusts an intermediate by itself asks nobody about it")
}

// TestT12_ListsAfterARestart: of a boot that goes on, only its identity is
// known then. Each issuer is asked about its own, and no other.
func TestT12_ListsAfterARestart(t *testing.T) {
	w := newWorld(t)
	one := func(c *x509.Certificate) { c.SerialNumber = big.NewInt(777) }
	root := newCA(t, "corp", nothing)
	a, b := root.sub("a", nothing), root.sub("b", nothing)
	ofA, ofB, other := a.issue("m", one), b.issue("m", nothing), b.issue("m", one)
	lists := func(ofRoot, ofIssuerB []byte) []byte {
		return slices.Concat(a.crlWith(func(l *x509.RevocationList) { l.NextUpdate = start.Add(30 * day) }), ofIssuerB, ofRoot)
	}
	tr := w.open()
	mustAdd(t, tr, w.withCRL("corp", "", lists(root.crl(start), b.crl(start)), root.cert, a.cert, b.cert))
	idA, err := tr.Verify(chain(ofA), start)
	require.NoError(t, err)
	idB, err := tr.Verify(chain(ofB), start)
	require.NoError(t, err)
	good := func(at time.Time, codeA, codeB string) {
		t.Helper()
		again := w.open()
		for _, tt := range []struct {
			id   pki.Identity
			leaf *x509.Certificate
			code string
		}{{idA, ofA, codeA}, {idB, ofB, codeB}} {
			require.Equal(t, tt.code, codeOf(t, again.Good(tt.id, at)))
			_, err := again.Verify(chain(tt.leaf), at)
			require.Equal(t, tt.code, codeOf(t, err), "a new request is answered the same")
		}
	}
	good(start, "", "")
	w.file("corp.crl", lists(root.crlWith(func(l *x509.RevocationList) { l.NextUpdate = start.Add(30 * day) }), b.crl(start.Add(time.Hour), other)))
	good(start, "", "")
	good(start.Add(10*day), "", pki.CodeStaleCRL)
	w.file("corp.crl", lists(root.crl(start.Add(time.Hour), b.cert), b.crl(start.Add(time.Hour), other)))
	good(start, "", pki.CodeRevoked)
	require.ErrorContains(t, w.open().Good(idB, start), `"CN=b", which issued it, is on the revocation list of "CN=corp"`)
}

// TestNumbersOfOthersAreNotMixedUp: two authorities of an entry count from the
// same number.
func TestNumbersOfOthersAreNotMixedUp(t *testing.T) {
	w := newWorld(t)
	one := func(c *x509.Certificate) { c.SerialNumber = big.NewInt(4096) }
	root := newCA(t, "corp", nothing)
	a, b := root.sub("a", nothing), root.sub("b", nothing)
	ofA, ofB := a.issue("m", one), b.issue("m", one)
	tr := w.open()
	mustAdd(t, tr, w.withCRL("corp", "", append(append(a.crl(start, ofA), b.crl(start)...), root.crl(start)...), root.cert, a.cert, b.cert))
	_, err := tr.Verify(chain(ofA), start)
	require.Equal(t, pki.CodeRevoked, codeOf(t, err))
	id, err := tr.Verify(chain(ofB), start)
	require.NoError(t, err)
	require.NoError(t, tr.Good(id, start))
	require.NoError(t, w.open().Good(id, start))
}

func TestStaleList(t *testing.T) {
	for _, stale := range []string{StaleRefuse, StaleAccept} {
		t.Run(stale, func(t *testing.T) {
			w := newWorld(t)
			tr := w.open()
			root := newCA(t, "corp", nothing)
			good, bad := root.issue("good", nothing), root.issue("bad", nothing)
			mustAdd(t, tr, w.withCRL("corp", stale, root.crl(start, bad), root.cert))
			id, err := tr.Verify(chain(good), start)
			require.NoError(t, err)
			tr.poll(t.Context())
			require.NotContains(t, w.logged(), "no current revocation list")

			w.add(8 * day)
			changed := tr.Changed()
			tr.poll(t.Context())
			require.True(t, rang(changed), "connections are looked at when the list ends")
			want := map[string]string{StaleRefuse: pki.CodeStaleCRL, StaleAccept: ""}[stale]
			_, err = tr.Verify(chain(good), w.clock())
			require.Equal(t, want, codeOf(t, err))
			require.Equal(t, want, codeOf(t, tr.Good(id, w.clock())))
			require.Equal(t, want, codeOf(t, w.open().Good(id, w.clock())), "also when nothing is known of its path")
			_, err = tr.Verify(chain(bad), w.clock())
			require.Equal(t, pki.CodeRevoked, codeOf(t, err), "an old list still counts")
			require.Contains(t, tr.List()[0].Faults[0], "no current revocation list")

			changed = tr.Changed()
			tr.poll(t.Context())
			require.False(t, rang(changed), "said once")
			require.Equal(t, 1, strings.Count(w.logged(), "no current revocation list"))
			w.file("corp.crl", root.crl(w.clock(), bad))
			tr.poll(t.Context())
			_, err = tr.Verify(chain(good), w.clock())
			require.NoError(t, err)
			require.Empty(t, tr.List()[0].Faults)
		})
	}
}

// TestWrongListsAreRefused when an authority is registered, and later the last
// good one goes on.
func TestWrongListsAreRefused(t *testing.T) {
	root := newCA(t, "corp", nothing)
	bad := root.issue("bad", nothing)
	impostor := newCA(t, "corp", nothing)
	noSign := newCA(t, "corp", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
	good := root.crl(start, bad)
	block, _ := pem.Decode(root.crl(start))
	flipped := append([]byte{}, block.Bytes...)
	flipped[len(flipped)-1] ^= 1
	extension := func(id asn1.ObjectIdentifier, critical bool) []byte {
		return root.crlWith(func(tpl *x509.RevocationList) {
			tpl.ExtraExtensions = []pkix.Extension{{Id: id, Critical: critical, Value: []byte{5, 0}}}
		})
	}
	later := func() []byte { return root.crl(start.Add(time.Hour)) }
	tests := []struct {
		name string
		data []byte
		why  string
		ca   *x509.Certificate
	}{
		{"of another authority", newCA(t, "other", nothing).crl(start), `it is the list of another authority: of "CN=other"`, nil},
		{"forged", impostor.crl(start.Add(time.Hour)), "its signature is not the authority's", nil},
		{"forged beside a good one", append(later(), impostor.crl(start.Add(2*time.Hour))...), "its signature is not the authority's", nil},
		{"changed", flipped, "its signature is not the authority's", nil},
		{"of one that may not sign lists", ca{t, root.cert, root.key}.crl(start), "its signature is not the authority's", noSign.cert},
		{"cut off", later()[:100], "it holds no revocation list", nil},
		{"cut off in DER", block.Bytes[:100], "is damaged", nil},
		{"empty", nil, "is damaged", nil},
		{"a certificate", []byte(text(root.cert)), `it holds a "CERTIFICATE"`, nil},
		{"a delta", extension(asn1.ObjectIdentifier{2, 5, 29, 27}, true), "critical extension 2.5.29.27", nil},
		{"a delta that does not say so aloud", extension(asn1.ObjectIdentifier{2, 5, 29, 27}, false), "delta list", nil},
		{"of a part", extension(asn1.ObjectIdentifier{2, 5, 29, 28}, true), "only full lists of one issuer", nil},
		{"of several issuers", root.crlWith(func(tpl *x509.RevocationList) {
			tpl.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(1), RevocationTime: start, ExtraExtensions: []pkix.Extension{
				{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{5, 0}},
			}}}
		}), "entry 1 has the critical extension 2.5.29.29", nil},
		{"too large", make([]byte, maxCRL+1), "larger than 16777216 bytes", nil},
		{"older than the last", root.crl(start.Add(-time.Hour)), "was seen already", nil},
		{"as old, but with a lower number", root.crlWith(func(tpl *x509.RevocationList) { tpl.Number = big.NewInt(0) }), "was seen already", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			tr := w.open()
			cert := root.cert
			if tt.ca != nil {
				cert = tt.ca
			}
			if tt.why != "was seen already" { // what is old, nobody can know at first
				for _, stale := range []string{StaleRefuse, StaleAccept} {
					_, err := tr.Add(t.Context(), w.withCRL("corp", stale, tt.data, cert))
					var invalid *Invalid
					require.ErrorAs(t, err, &invalid)
					require.Equal(t, "crl", invalid.Faults[0].Field)
					require.Contains(t, invalid.Faults[0].Message, tt.why)
				}
				require.Empty(t, tr.List())
			}
			if tt.ca != nil {
				return
			}
			mustAdd(t, tr, w.withCRL("corp", "", good, root.cert))
			changed := tr.Changed()
			w.file("corp.crl", tt.data)
			tr.poll(t.Context())
			require.False(t, rang(changed))
			require.Contains(t, tr.List()[0].Faults[0], tt.why)
			require.Contains(t, w.logged(), "the last good one goes on")
			_, err := tr.Verify(chain(bad), start)
			require.Equal(t, pki.CodeRevoked, codeOf(t, err))
			w.file("corp.crl", root.crl(start.Add(time.Minute)))
			tr.poll(t.Context())
			require.Empty(t, tr.List()[0].Faults)
			_, err = tr.Verify(chain(bad), start)
			require.NoError(t, err, "a newer list decides, also that something is good again")
		})
	}
}

// TestTwoListsInOneSecond: tools that revoke one by one write such.
func TestTwoListsInOneSecond(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	bad := root.issue("bad", nothing)
	mustAdd(t, tr, w.withCRL("corp", "", root.crl(start), root.cert))
	w.file("corp.crl", root.crl(start, bad))
	tr.poll(t.Context())
	_, err := tr.Verify(chain(bad), start)
	require.Equal(t, pki.CodeRevoked, codeOf(t, err))
}

func TestListWithoutEndIsStale(t *testing.T) {
	l, err := newList(&x509.RevocationList{ThisUpdate: start}, nil)
	require.NoError(t, err)
	require.True(t, l.stale(start))
	require.Contains(t, l.endReason(), "does not say when it ends")
}

func TestMissingListAtFirst(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	pipe := filepath.Join(w.dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	for path, why := range map[string]string{filepath.Join(w.dir, "none"): "no such file", pipe: "is not a file", w.dir: "is not a file"} {
		spec := caSpec("corp", root.cert)
		spec.CRL = &CRL{File: path}
		_, err := tr.Add(t.Context(), spec)
		var invalid *Invalid
		require.ErrorAs(t, err, &invalid)
		require.Contains(t, invalid.Error(), why)
		spec.CRL = &CRL{File: path, Stale: StaleAccept}
		e := mustAdd(t, tr, spec)
		require.Contains(t, e.Faults[0], why)
		_, err = tr.Verify(chain(root.issue("m", nothing)), start)
		require.NoError(t, err)
		_, err = tr.Remove(t.Context(), e.ID)
		require.NoError(t, err)
	}
	spec := w.withCRL("corp", "", root.crl(start.Add(-8*day)), root.cert)
	_, err := tr.Add(t.Context(), spec)
	require.ErrorContains(t, err, "every machine would be refused")
}

// TestFileThatComesBackIsRead although its first reading failed.
func TestFileThatComesBackIsRead(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	bad := root.issue("bad", nothing)
	mustAdd(t, tr, w.withCRL("corp", "", root.crl(start), root.cert))
	require.NoError(t, os.Remove(filepath.Join(w.dir, "corp.crl")))
	tr.poll(t.Context())
	require.Contains(t, tr.List()[0].Faults[0], "no such file")
	_, err := tr.Verify(chain(bad), start)
	require.NoError(t, err, "the last list goes on until it ends")
	w.file("corp.crl", root.crl(start.Add(time.Minute), bad))
	tr.poll(t.Context())
	_, err = tr.Verify(chain(bad), start)
	require.Equal(t, pki.CodeRevoked, codeOf(t, err))
}

// TestRestartKeepsLists: what was revoked stays so when the source is away,
// and a list that is older is not taken after a restart either.
func TestRestartKeepsLists(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	bad := root.issue("bad", nothing)
	e := mustAdd(t, tr, w.withCRL("corp", "", root.crl(start, bad), root.cert))
	require.NoError(t, os.Remove(filepath.Join(w.dir, "corp.crl")))
	check := func() {
		t.Helper()
		tr = w.open()
		_, err := tr.Verify(chain(bad), start)
		require.Equal(t, pki.CodeRevoked, codeOf(t, err))
		_, err = tr.Verify(chain(root.issue("good", nothing)), start)
		require.NoError(t, err)
		require.NotEmpty(t, tr.List()[0].Faults)
	}
	check()
	w.file("corp.crl", root.crl(start.Add(-time.Hour)))
	check()

	saved, err := filepath.Glob(filepath.Join(w.dir, "crl", "*.crl"))
	require.NoError(t, err)
	require.Len(t, saved, 1)
	require.NoError(t, os.WriteFile(saved[0], newCA(t, "corp", nothing).crl(start), 0o600))
	w.file("corp.crl", root.crl(start, bad))
	tr = w.open()
	require.Contains(t, w.logged(), "a saved revocation list cannot be used", "what lies on the disk is not trusted either")
	_, err = tr.Verify(chain(bad), start)
	require.Equal(t, pki.CodeRevoked, codeOf(t, err))

	_, err = tr.Remove(t.Context(), e.ID)
	require.NoError(t, err)
	saved, err = filepath.Glob(filepath.Join(w.dir, "crl", "*"))
	require.NoError(t, err)
	require.Empty(t, saved)
}

// publisher serves a list.
type publisher struct {
	data   atomic.Pointer[[]byte]
	status atomic.Int32
	asked  atomic.Int32
	sent   atomic.Int32
}

func (p *publisher) set(data []byte) { p.data.Store(&data) }

func (p *publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.asked.Add(1)
	if s := p.status.Load(); s != 0 {
		w.WriteHeader(int(s))
		return
	}
	data := *p.data.Load()
	tag := fmt.Sprintf(`"%x"`, sha256.Sum256(data))
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	p.sent.Add(1)
	_, _ = w.Write(data)
}

func TestListByURL(t *testing.T) {
	w := newWorld(t)
	root := newCA(t, "corp", nothing)
	good, bad := root.issue("good", nothing), root.issue("bad", nothing)
	p := &publisher{}
	p.set(root.crl(start))
	srv := httptest.NewServer(p)
	t.Cleanup(srv.Close)
	cfg := w.config()
	cfg.Fetch = srv.Client()
	tr, err := Open(t.Context(), cfg)
	require.NoError(t, err)
	spec := caSpec("corp", root.cert)
	spec.CRL = &CRL{URL: srv.URL + "/ca.crl"}
	mustAdd(t, tr, spec)
	require.EqualValues(t, 1, p.asked.Load())

	tr.askURLs(t.Context())
	require.EqualValues(t, 1, p.asked.Load(), "not due yet")
	w.add(fetchEvery)
	tr.askURLs(t.Context())
	require.EqualValues(t, 2, p.asked.Load())
	require.EqualValues(t, 1, p.sent.Load(), "nothing new is not sent again")

	p.set(root.crl(start.Add(time.Minute), bad))
	w.add(fetchEvery)
	changed := tr.Changed()
	tr.askURLs(t.Context())
	require.True(t, rang(changed))
	_, err = tr.Verify(chain(bad), w.clock())
	require.Equal(t, pki.CodeRevoked, codeOf(t, err))

	// The publisher is down: the last list goes on, tries come sooner.
	p.status.Store(http.StatusServiceUnavailable)
	w.add(fetchEvery)
	tr.askURLs(t.Context())
	require.Contains(t, tr.List()[0].Faults[0], "answered 503")
	asked := p.asked.Load()
	w.add(fetchRetry)
	tr.askURLs(t.Context())
	require.Equal(t, asked+1, p.asked.Load())
	_, err = tr.Verify(chain(good), w.clock())
	require.NoError(t, err)

	// A restart without it knows what was revoked; Open does not wait for it.
	tr, err = Open(t.Context(), cfg)
	require.NoError(t, err)
	require.Equal(t, asked+1, p.asked.Load())
	_, err = tr.Verify(chain(bad), w.clock())
	require.Equal(t, pki.CodeRevoked, codeOf(t, err))
	p.status.Store(0)
	tr.askURLs(t.Context())
	require.Empty(t, tr.List()[0].Faults)
	w.add(8 * day)
	_, err = tr.Verify(chain(good), w.clock())
	require.Equal(t, pki.CodeStaleCRL, codeOf(t, err))

	p.set(make([]byte, maxCRL+1))
	tr.askURLs(t.Context())
	require.Contains(t, tr.List()[0].Faults[0], "larger than")
}

// TestT25_ListsAreNotFetchedFromThisHost: an address is given by an operator,
// and what listens on this host may trust it.
func TestT25_ListsAreNotFetchedFromThisHost(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	p := &publisher{}
	p.set(root.crl(start))
	srv := httptest.NewServer(p)
	t.Cleanup(srv.Close)
	for _, host := range []string{srv.URL, "http://[::1]:1", "http://[::ffff:127.0.0.1]:1", "http://169.254.169.254", "http://0.0.0.0:1", "http://localhost:1"} {
		spec := caSpec("corp", root.cert)
		spec.CRL = &CRL{URL: host + "/ca.crl"}
		_, err := tr.Add(t.Context(), spec)
		require.ErrorContains(t, err, "address of this host or link", host)
	}
	require.Zero(t, p.asked.Load())

	elsewhere := httptest.NewServer(http.RedirectHandler(srv.URL, http.StatusFound))
	t.Cleanup(elsewhere.Close)
	client := newClient()
	client.Transport = http.DefaultTransport
	resp, err := client.Get(elsewhere.URL)
	if err == nil {
		_ = resp.Body.Close()
	}
	require.ErrorContains(t, err, "name that address instead")
	require.Zero(t, p.asked.Load())
}

func TestRunReadsFilesThatChange(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	bad := root.issue("bad", nothing)
	mustAdd(t, tr, w.withCRL("corp", "", root.crl(start), root.cert))
	run(t, tr)
	changed := tr.Changed()
	w.file("corp.crl", root.crl(start.Add(time.Minute), bad))
	select {
	case <-changed:
	case <-time.After(10 * time.Second): // of a busy machine; it looks twice a second
		t.Fatal("the file was not read")
	}
	_, err := tr.Verify(chain(bad), start)
	require.Equal(t, pki.CodeRevoked, codeOf(t, err))
}

// TestT12_ListsFromTheFuture would hide every list until then.
func TestT12_ListsFromTheFuture(t *testing.T) {
	root := newCA(t, "corp", nothing)
	bad := root.issue("bad", nothing)
	list := func(number int64, this time.Time, revoked ...*x509.Certificate) []byte {
		return root.crlWith(func(l *x509.RevocationList) {
			l.Number, l.ThisUpdate, l.NextUpdate = big.NewInt(number), this, this.Add(3650*day)
			for _, c := range revoked {
				l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: start})
			}
		})
	}
	for name, tt := range map[string]struct {
		ahead time.Duration // of the second list
		clock time.Duration // of ours, when it is read
		fault string
	}{
		"refused":                   {26 * time.Hour, 0, "which is yet to come"},
		"taken by a clock as wrong": {3650 * day, 3650 * day, ""},
		"not so far":                {20 * time.Hour, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tr := w.open()
			mustAdd(t, tr, w.withCRL("corp", "", list(1, start), root.cert))
			w.add(tt.clock)
			w.file("corp.crl", list(2, start.Add(tt.ahead)))
			tr.poll(t.Context())
			require.Equal(t, tt.fault != "", strings.Contains(strings.Join(tr.List()[0].Faults, "; "), tt.fault) && tt.fault != "")
			w.add(-tt.clock)
			_, err := tr.Verify(chain(bad), start)
			require.NoError(t, err)

			w.file("corp.crl", list(3, start.Add(time.Second), bad))
			again := w.open()
			tr.poll(t.Context())
			for _, tr := range []*Trusted{tr, again} {
				_, err = tr.Verify(chain(bad), start)
				require.Equal(t, pki.CodeRevoked, codeOf(t, err))
				_, err = tr.Verify(chain(root.issue("good", nothing)), start)
				require.NoError(t, err)
			}
		})
	}
}

// TestT12_SmallListsDoNotWaitForLargeOnes has two large ones being read all the
// time, of another entry and of none yet.
func TestT12_SmallListsDoNotWaitForLargeOnes(t *testing.T) {
	w := newWorld(t)
	large, small := newCA(t, "large", nothing), newCA(t, "small", nothing)
	bad := small.issue("bad", nothing)
	tr := w.open()
	mustAdd(t, tr, w.withCRL("large", "", large.crl(start), large.cert))
	mustAdd(t, tr, w.withCRL("small", "", small.crl(start), small.cert))
	other := tr.all.Load().live[0]
	other.source.busy.Lock()
	tr.parsing.Lock()
	defer other.source.busy.Unlock()
	defer tr.parsing.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { tr.Run(ctx) })
	w.file("small.crl", small.crl(start.Add(time.Hour), bad))
	acts := func() bool { _, err := tr.Verify(chain(bad), start); return err != nil }
	require.Eventually(t, acts, 5*time.Second, 10*time.Millisecond)
	cancel()
	running.Wait()
}

// TestTheEndOfAListIsTold before it comes, and when it has come, with whose list
// it was.
func TestTheEndOfAListIsTold(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	mustAdd(t, tr, w.withCRL("corp", "", root.crl(start), root.cert)) // a week
	faults := func() string {
		tr.poll(t.Context())
		return strings.Join(tr.List()[0].Faults, "; ")
	}
	w.add(5*day + 23*time.Hour)
	require.Empty(t, faults())
	w.add(2 * time.Hour)
	require.Contains(t, faults(), `the revocation list of "CN=corp" ends at `)
	_ = faults()
	require.Equal(t, 1, strings.Count(w.logged(), "a revocation list ends soon"), "said once")
	w.add(2 * day)
	require.Contains(t, faults(), `no current revocation list: the revocation list of "CN=corp" ended at `)
	w.file("corp.crl", root.crl(start.Add(-day))) // an older one is put back
	require.Contains(t, faults(), "that one counts and has ended")
	require.Contains(t, w.logged(), "and there is no current one")
	require.NotContains(t, w.logged(), "goes on")
}

// TestEntriesThatGetAroundEachOther: the lenient one of two decides.
func TestEntriesThatGetAroundEachOther(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	strict := w.withCRL("strict", "", root.crl(start), root.cert)
	strict.Allow = []string{"CN=node-*"}
	mustAdd(t, tr, strict)
	mustAdd(t, tr, caSpec("open", root.cert))
	require.Contains(t, tr.List()[0].Faults[0], "lets it in, past this one's names, revocation list, and removing one leaves the other")
	require.Contains(t, tr.List()[1].Faults[0], "whichever of the two lets it in, and removing")
}
