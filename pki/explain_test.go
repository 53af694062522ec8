package pki

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki/vault"
)

// TestExplainGolden: each rule's answer about certificates of all kinds. Explain
// and Verify must agree.
func TestExplainGolden(t *testing.T) {
	cfg, _ := testConfig(t)
	a := openAuthority(t, cfg)
	ours, err := a.dir.readPair("intermediate")
	require.NoError(t, err)
	foreign, err := plainDir(t.TempDir()).ensureIssuers(1, start)
	require.NoError(t, err)
	old, revoked := issue(t, a, "rack1"), issue(t, a, "rack2")
	require.NoError(t, a.Revoke(t.Context(), SerialOf(revoked)))
	_, err = a.RotateRoot(t.Context())
	require.NoError(t, err)
	dropped := openAuthority(t, cfg)
	plain := func(*x509.Certificate) {}
	var text strings.Builder
	for _, tt := range []struct {
		name  string
		a     *Authority
		chain []*x509.Certificate
		at    time.Time
	}{
		{"none", a, nil, start},
		{"good", a, []*x509.Certificate{old}, start},
		{"foreign", a, []*x509.Certificate{forge(t, foreign.intermediate, plain), foreign.intermediate.cert}, start},
		{"expired", a, []*x509.Certificate{old}, start.Add(366 * day)},
		{"not yet valid", a, []*x509.Certificate{old}, start.Add(-2 * day)},
		{"server", a, []*x509.Certificate{a.ServerCertificate().Leaf}, start},
		{"not recorded", a, []*x509.Certificate{forge(t, ours, plain)}, start},
		{"revoked", a, []*x509.Certificate{revoked}, start},
		{"generation dropped", dropped, []*x509.Certificate{old}, start},
	} {
		if tt.a == dropped {
			require.NoError(t, dropped.Drop(t.Context(), 1))
		}
		id, err := tt.a.Verify(tt.chain, tt.at)
		steps := tt.a.Explain(tt.chain, tt.at)
		last := steps[len(steps)-1]
		text.WriteString("[" + tt.name + "]\n")
		for _, s := range steps {
			line, err := json.Marshal(s)
			require.NoError(t, err)
			text.Write(append(line, '\n'))
		}
		if err == nil {
			require.Empty(t, last.Code)
			require.NoError(t, tt.a.Good(id, tt.at))
			continue
		}
		r := refusal(t, err)
		require.Equal(t, r.Code, last.Code)
		require.Equal(t, r.Reason, last.Reason)
	}
	got := regexp.MustCompile(`root [0-9a-f]{8}\b`).ReplaceAllString(text.String(), "root <key>")
	golden := filepath.Join("testdata", "explain.golden")
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestT12_OneCertificateIsRevokedAtOnce(t *testing.T) {
	cfg, c := testConfig(t)
	dir := t.TempDir()
	cfg.Store = openStore(t, dir)
	a := openAuthority(t, cfg)
	one, other := issue(t, a, "rack1"), issue(t, a, "rack1")
	id, err := a.Verify([]*x509.Certificate{one}, c.Now())
	require.NoError(t, err)
	require.NoError(t, a.Good(id, c.Now()))
	require.Equal(t, CodeExpired, refusal(t, a.Good(id, c.Now().Add(366*day))).Code)
	changed := a.Changed()

	text := "0" + strings.ToUpper(SerialOf(one)) // as openssl x509 -serial has it
	require.NoError(t, a.Revoke(t.Context(), text[:2]+":"+text[2:]))
	select {
	case <-changed:
	default:
		t.Fatal("who waits for changes must hear of it")
	}
	require.Equal(t, CodeRevoked, refusal(t, verifies(a, one)).Code)
	require.Equal(t, CodeRevoked, refusal(t, a.Good(id, c.Now())).Code)
	require.NoError(t, verifies(a, other), "the set's other certificate is good")
	changed = a.Changed()
	require.NoError(t, a.Revoke(t.Context(), SerialOf(one)), "again does no harm")
	require.ErrorIs(t, a.Revoke(t.Context(), "abc"), ErrUnknownCertificate)
	select {
	case <-changed:
		t.Fatal("nothing has changed")
	default:
	}
	c.Add(366 * day)
	want := []Issued{
		{SerialOf(one), "rack1", StateRevoked, start, one.NotAfter, sha256.Sum256(one.Raw), 1},
		{SerialOf(other), "rack1", StateExpired, start, other.NotAfter, sha256.Sum256(other.Raw), 1},
	}
	require.ElementsMatch(t, want, a.Issued())
	c.Add(-366 * day)

	// Without a store it holds until the next start, and fires all the same.
	require.NoError(t, cfg.Store.Close())
	changed = a.Changed()
	require.Error(t, a.Revoke(t.Context(), SerialOf(other)))
	<-changed
	require.Equal(t, CodeRevoked, refusal(t, verifies(a, other)).Code)
	cfg.Store = openStore(t, dir)
	a = openAuthority(t, cfg)
	require.Equal(t, CodeRevoked, refusal(t, verifies(a, one)).Code)
	require.NoError(t, verifies(a, other))
}

func TestT13_GoodIsAboutTheCertificateThatWasSeen(t *testing.T) {
	cfg, c := testConfig(t)
	a := openAuthority(t, cfg)
	id, err := a.Verify([]*x509.Certificate{issue(t, a, "rack1")}, c.Now())
	require.NoError(t, err)
	for name, change := range map[string]func(*Identity){
		"another kind":        func(i *Identity) { i.Kind = KindPin },
		"another fingerprint": func(i *Identity) { i.Fingerprint[0]++ },
		"another serial":      func(i *Identity) { i.Serial = "1" },
	} {
		other := id
		change(&other)
		require.Equal(t, CodeUnknownSet, refusal(t, a.Good(other, c.Now())).Code, name)
	}
	require.NoError(t, a.Good(id, c.Now().Add(-30*day)), "a clock that is set back ends no boot")
}

// TestT37_Clocks says what a machine and the server make of each other's clocks:
// iPXE accepts 12.5 h beyond a certificate's dates, firmware nothing.
func TestT37_Clocks(t *testing.T) {
	cfg, c := testConfig(t)
	a := openAuthority(t, cfg)
	_, err := a.RotateRoot(t.Context())
	require.NoError(t, err)
	_, err = a.Rotate(t.Context())
	require.NoError(t, err)
	cert := issue(t, a, "rack1")
	chain := append([]*x509.Certificate{a.Leafs(2)[0].Leaf, a.Leafs(2)[1].Leaf, cert}, newest(a).chain()...)
	for _, x := range append(chain, newest(a).cross[1]) {
		require.Equal(t, start.Add(-24*time.Hour), x.NotBefore, "%s is backdated", x.Subject)
	}
	for _, tt := range []struct {
		name    string
		machine time.Time // what its clock says when we connect
		trusts  bool      // a client without iPXE's margin
		code    string    // if it were our clock that says so
	}{
		{"right", start, true, ""},
		{"13 hours slow", start.Add(-13 * time.Hour), true, ""},
		{"13 hours fast", start.Add(13 * time.Hour), true, ""},
		{"2000", time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), false, CodeNotYetValid},
		{"2040", time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC), false, CodeExpired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, leaf := range a.Leafs(2) {
				require.Equal(t, tt.trusts, clientTrusts(leaf, "ipxe-2.example.net", tt.machine, a.Root()) == nil)
			}
			// The machine's clock is not asked: ours is.
			require.NoError(t, verifies(a, cert))
			_, err := a.Verify([]*x509.Certificate{cert}, tt.machine)
			if tt.code == "" {
				require.NoError(t, err)
				return
			}
			require.Equal(t, tt.code, refusal(t, err).Code)
		})
	}
	c.Add(-26 * 365 * day) // our own clock was never set
	_, err = a.RotateRoot(t.Context())
	require.ErrorContains(t, err, "the clock says 2000")
	require.Equal(t, CodeNotYetValid, refusal(t, verifies(a, cert)).Code)
	require.NotContains(t, listing(t, cfg.Dir), "gen-3", "what was begun is removed")
	require.Equal(t, 2, newest(openAuthority(t, cfg)).number)
}

// TestT30_KeysOfAllGenerationsAreEncrypted takes an encrypted authority through
// its life and looks for private keys in what is left on disk.
func TestT30_KeysOfAllGenerationsAreEncrypted(t *testing.T) {
	cfg, _ := testConfig(t)
	state := filepath.Join(t.TempDir(), "state")
	pass := filepath.Join(t.TempDir(), "pass")
	require.NoError(t, os.WriteFile(pass, []byte("correct horse battery staple"), 0o600))
	var err error
	cfg.Vault, err = vault.Open(state, vault.KEK{PassphraseFile: pass})
	require.NoError(t, err)
	cfg.Dir = filepath.Join(state, "pki")
	for range 2 {
		a := openAuthority(t, cfg)
		_, err := a.Rotate(t.Context())
		require.NoError(t, err)
		_, err = a.RotateRoot(t.Context())
		require.NoError(t, err)
		issue(t, a, "rack1")
	}
	require.NoError(t, openAuthority(t, cfg).Drop(t.Context(), 2))
	keys := 0
	require.NoError(t, filepath.WalkDir(state, func(path string, d os.DirEntry, err error) error {
		require.NoError(t, err)
		if d.IsDir() {
			return nil
		}
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NotContains(t, string(data), "PRIVATE KEY", path)
		if filepath.Ext(path) == ".key" {
			require.Contains(t, string(data[:30]), "age-encryption.org", path)
			keys++
		}
		return nil
	}))
	require.Equal(t, 2*4, keys, "of both that live")
	cfg.Vault = nil
	_, err = Open(t.Context(), cfg)
	require.ErrorContains(t, err, "no key is configured")
}
