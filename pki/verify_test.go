package pki

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func refusal(t testing.TB, err error) *Refusal {
	t.Helper()
	var r *Refusal
	require.True(t, errors.As(err, &r), "not a refusal: %v", err)
	return r
}

// forge signs a leaf as by is able to, past the embedded authority.
func forge(t *testing.T, by pair, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	name, err := url.Parse(setURN + "rack-1")
	require.NoError(t, err)
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: "rack-1"}, URIs: []*url.URL{name},
		NotBefore: start.Add(-time.Hour), NotAfter: start.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	change(tpl)
	der, err := x509.CreateCertificate(nil, tpl, by.cert, by.key.Public(), by.key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

// enter records cert as if it had been issued.
func enter(t *testing.T, a *Authority, cert *x509.Certificate, rec record) {
	t.Helper()
	value, err := json.Marshal(rec)
	require.NoError(t, err)
	revision, err := a.records.store.Put(t.Context(), certPrefix+SerialOf(cert), value)
	require.NoError(t, err)
	require.NoError(t, a.records.mirror.Wait(t.Context(), revision))
}

func TestT13_Verify(t *testing.T) {
	cfg, _ := testConfig(t)
	a := openAuthority(t, cfg)
	ours, err := a.dir.readPair("intermediate")
	require.NoError(t, err)
	foreign, err := plainDir(t.TempDir()).ensureIssuers(1, start)
	require.NoError(t, err)

	issued, err := a.IssueMachine(t.Context(), "rack-1", start.Add(time.Hour))
	require.NoError(t, err)
	good := issued.Certificate
	plain := func(*x509.Certificate) {}
	serial := func(n int64, more func(*x509.Certificate)) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.SerialNumber = big.NewInt(n); more(c) }
	}
	both := forge(t, ours, serial(1, func(c *x509.Certificate) {
		c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}))
	anyUse := forge(t, ours, serial(2, func(c *x509.Certificate) { c.ExtKeyUsage = nil }))
	revoked := forge(t, ours, serial(3, plain))
	swapped := forge(t, ours, serial(4, plain))
	otherSet := forge(t, ours, serial(5, plain))
	damaged := forge(t, ours, serial(6, plain))
	for _, c := range []*x509.Certificate{both, anyUse} {
		enter(t, a, c, record{Set: "rack-1", Fingerprint: sha256.Sum256(c.Raw), State: stateActive})
	}
	enter(t, a, revoked, record{Set: "rack-1", Fingerprint: sha256.Sum256(revoked.Raw), State: "revoked"})
	enter(t, a, swapped, record{Set: "rack-1", Fingerprint: sha256.Sum256(good.Raw), State: stateActive})
	enter(t, a, otherSet, record{Set: "rack-2", Fingerprint: sha256.Sum256(otherSet.Raw), State: stateActive})
	_, err = a.records.store.Put(t.Context(), certPrefix+SerialOf(damaged), []byte("{"))
	require.NoError(t, err)

	named := *newest(a).intermediate
	named.PublicKey = foreign.intermediate.key.Public()
	impostor := pair{cert: &named, key: foreign.intermediate.key}

	past, future := start.Add(-48*time.Hour), start.Add(48*time.Hour)
	tests := []struct {
		name string
		leaf *x509.Certificate
		at   time.Time
		code string
		set  string
	}{
		{"accepted", good, start, "", "rack-1"},
		{"accepted a day before its issue", good, start.Add(-23 * time.Hour), "", "rack-1"},
		{"expired", good, future, CodeExpired, "rack-1"},
		{"not yet valid", good, past, CodeNotYetValid, "rack-1"},
		{"foreign ca", forge(t, foreign.intermediate, plain), start, CodeUnknownCA, ""},
		{"foreign ca, expired", forge(t, foreign.intermediate, plain), future, CodeUnknownCA, ""},
		{"foreign ca, not yet valid", forge(t, foreign.intermediate, plain), past, CodeUnknownCA, ""},
		{"foreign ca with our names", forge(t, impostor, plain), start, CodeUnknownCA, ""},
		{"foreign root", foreign.root.cert, start, CodeUnknownCA, ""},
		{"issued by a machine", forge(t, pair{cert: good, key: issued.Key}, plain), start, CodeUnknownCA, ""},
		{"our server", a.ServerCertificate().Leaf, start, CodeWrongUsage, ""},
		{"our intermediate", newest(a).intermediate, start, CodeWrongUsage, ""},
		{"our root", newest(a).root, start, CodeWrongUsage, ""},
		{"client and server usage", both, start, CodeWrongUsage, "rack-1"},
		{"no usage at all", anyUse, start, CodeWrongUsage, "rack-1"},
		{"not recorded", forge(t, ours, plain), start, CodeUnknownSet, "rack-1"},
		{"recorded with another fingerprint", swapped, start, CodeUnknownSet, "rack-1"},
		{"recorded for another set", otherSet, start, CodeUnknownSet, "rack-1"},
		{"recorded beyond recognition", damaged, start, CodeUnknownSet, "rack-1"},
		{"revoked", revoked, start, CodeRevoked, "rack-1"},
	}
	for _, tt := range append(tests, tests...) { // what is remembered of the first time changes nothing
		t.Run(tt.name, func(t *testing.T) {
			want := Identity{
				Set: tt.set, Name: tt.set, Subject: tt.leaf.Subject.CommonName,
				Fingerprint: sha256.Sum256(tt.leaf.Raw), Serial: tt.leaf.SerialNumber.Text(16), NotAfter: tt.leaf.NotAfter,
			}
			if tt.set != "" {
				want.Kind, want.Generation = KindSet, 1
			}
			// The client may send what it likes behind its leaf.
			id, err := a.Verify([]*x509.Certificate{tt.leaf, foreign.intermediate.cert, foreign.root.cert}, tt.at)
			if tt.code == "" {
				require.NoError(t, err)
				require.Equal(t, want, id)
				return
			}
			r := refusal(t, err)
			require.Equal(t, tt.code, r.Code, r.Reason)
			require.NotEmpty(t, r.Reason)
			require.Equal(t, want, r.Identity)
			require.Zero(t, id)
		})
	}
}

func TestVerifyNeedsNoStore(t *testing.T) {
	cfg, _ := testConfig(t)
	a := openAuthority(t, cfg)
	m, err := a.IssueMachine(t.Context(), "rack-1", time.Time{})
	require.NoError(t, err)
	require.NoError(t, cfg.Store.Close())
	_, err = a.Verify([]*x509.Certificate{m.Certificate}, start)
	require.NoError(t, err)
	_, err = a.IssueMachine(t.Context(), "rack-1", time.Time{})
	require.ErrorContains(t, err, "issue certificate of set rack-1", "an unrecorded certificate must not leave")
}

func TestIssueMachine(t *testing.T) {
	cfg, c := testConfig(t)
	a := openAuthority(t, cfg)
	for _, name := range []string{"", "Rack", "rack_1", "rack 1", "räck", "a.b", "a/b", "012345678901234567890123456789012", "a\n"} {
		_, err := a.IssueMachine(t.Context(), name, time.Time{})
		require.ErrorContains(t, err, "set name", name)
	}
	_, err := a.IssueMachine(t.Context(), "rack-1", start.Add(-time.Second))
	require.Error(t, err)

	m, err := a.IssueMachine(t.Context(), "01234567890123456789012345678-az", start.Add(100*365*24*time.Hour))
	require.NoError(t, err)
	require.Equal(t, newest(a).intermediate.NotAfter, m.Certificate.NotAfter, "none outlives the intermediate")

	c.Add(11 * 365 * 24 * time.Hour)
	_, err = a.IssueMachine(t.Context(), "rack-1", time.Time{})
	require.ErrorContains(t, err, "the intermediate expired")
}

func TestIssuedCertificatesSurviveARestart(t *testing.T) {
	cfg, _ := testConfig(t)
	dir := t.TempDir()
	cfg.Store = openStore(t, dir)
	m, err := openAuthority(t, cfg).IssueMachine(t.Context(), "rack-1", time.Time{})
	require.NoError(t, err)
	require.NoError(t, cfg.Store.Close())
	cfg.Store = openStore(t, dir)
	a := openAuthority(t, cfg)
	_, err = a.Verify([]*x509.Certificate{m.Certificate}, start)
	require.NoError(t, err)
}

func BenchmarkVerify(b *testing.B) {
	cfg, _ := testConfig(b)
	a := openAuthority(b, cfg)
	m, err := a.IssueMachine(b.Context(), "rack-1", time.Time{})
	require.NoError(b, err)
	chain := []*x509.Certificate{m.Certificate}
	for b.Loop() {
		if _, err := a.Verify(chain, start); err != nil {
			b.Fatal(err)
		}
	}
}
