package pki

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestT12_RevokedSetIsRefusedAtOnce(t *testing.T) {
	cfg, _ := testConfig(t)
	dir := t.TempDir()
	cfg.Store = openStore(t, dir)
	a := openAuthority(t, cfg)
	issue := func(set string) *x509.Certificate {
		m, err := a.IssueMachine(t.Context(), set, time.Time{})
		require.NoError(t, err)
		return m.Certificate
	}
	first, renewed, other := issue("rack1"), issue("rack1"), issue("rack10")
	verify := func(c *x509.Certificate) error {
		_, err := a.Verify([]*x509.Certificate{c}, start)
		return err
	}
	serials, err := a.RevokeSet(t.Context(), "rack1")
	require.NoError(t, err)
	require.ElementsMatch(t, []string{SerialOf(first), SerialOf(renewed)}, serials)
	require.Equal(t, CodeRevoked, refusal(t, verify(first)).Code)
	require.Equal(t, CodeRevoked, refusal(t, verify(renewed)).Code, "what was issued before a renewal too")
	require.NoError(t, verify(other), "a name that begins alike is another set")

	again, err := a.RevokeSet(t.Context(), "rack1")
	require.NoError(t, err)
	require.Empty(t, again)
	next := issue("rack1")
	require.NoError(t, verify(next), "the name may be used again")

	require.NoError(t, cfg.Store.Close())
	_, err = a.RevokeSet(t.Context(), "rack1")
	require.ErrorContains(t, err, "the certificates of set rack1 are refused from now on", "it could not be written down")
	require.Equal(t, CodeRevoked, refusal(t, verify(next)).Code, "and holds until the next start")
	require.NoError(t, verify(other))
	cfg.Store = openStore(t, dir)
	a = openAuthority(t, cfg)
	require.Equal(t, CodeRevoked, refusal(t, verify(first)).Code, "also after a restart")
	require.NoError(t, verify(next))
}

func TestT12_GrantEndsWithItsSet(t *testing.T) {
	cfg, c := testConfig(t)
	a, g := openAuthority(t, cfg), openGrants(t, cfg.Store, c)
	m, err := a.IssueMachine(t.Context(), "rack1", time.Time{})
	require.NoError(t, err)
	credential := sha256.Sum256(m.Certificate.Raw)
	var grants []Token
	for _, boot := range []string{"b1", "b2"} {
		require.NoError(t, g.Open(t.Context(), boot, "machine-"+boot, "node", credential))
		grant, _, err := g.Mint(t.Context(), boot, credential)
		require.NoError(t, err)
		grants = append(grants, grant)
	}
	_, err = g.Redeem(t.Context(), grants[1], testAddr(1))
	require.NoError(t, err)
	_, err = a.RevokeSet(t.Context(), "rack1")
	require.NoError(t, err)
	require.NoError(t, g.certs.Wait(t.Context(), a.records.mirror.Revision()))
	for _, grant := range grants {
		_, err = g.Redeem(t.Context(), grant, testAddr(1))
		require.Equal(t, CodeGrantBurned, code(t, err))
	}
	grants[0].Secret = NewSecret()
	_, err = g.Redeem(t.Context(), grants[0], testAddr(1))
	require.Equal(t, CodeGrantUnknown, code(t, err), "who guesses learns nothing")
}

func TestKeyPoolBoundsItsMakers(t *testing.T) {
	cfg, _ := testConfig(t)
	making, release := make(chan struct{}, 100), make(chan struct{})
	made, err := newKey()
	require.NoError(t, err)
	cfg.NewKey = func() (*rsa.PrivateKey, error) {
		making <- struct{}{}
		<-release
		return made, nil
	}
	a := openAuthority(t, cfg)
	errs := make([]error, maxMakers)
	var waiting sync.WaitGroup
	for n := range errs {
		waiting.Go(func() { _, errs[n] = a.IssueMachine(t.Context(), "rack1", time.Time{}) })
	}
	for range maxMakers {
		<-making
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = a.IssueMachine(ctx, "rack1", time.Time{})
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, making, "no third key was begun")
	close(release)
	waiting.Wait()
	require.NoError(t, errors.Join(errs...))
}

func TestClockBeforeThePKI(t *testing.T) {
	cfg, c := testConfig(t)
	a := openAuthority(t, cfg)
	c.Add(-400 * 24 * time.Hour)
	_, err := a.IssueMachine(t.Context(), "rack1", time.Time{})
	require.ErrorContains(t, err, "before this PKI was made: set it")
}

func TestKeyPoolHandsEachKeyOutOnce(t *testing.T) {
	cfg, _ := testConfig(t)
	a := openAuthority(t, cfg)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- a.Run(ctx) }()
	require.Eventually(t, func() bool { return len(a.keys.ready) == poolSize }, time.Minute, time.Millisecond)
	stop()
	require.NoError(t, <-ended, "a full pool does not hold it up")
	seen := map[string]bool{}
	for range poolSize + 1 { // the last one is made while we wait
		m, err := a.IssueMachine(t.Context(), "rack1", time.Time{})
		require.NoError(t, err)
		require.True(t, m.Key.PublicKey.Equal(m.Certificate.PublicKey))
		require.False(t, seen[m.Key.N.String()])
		seen[m.Key.N.String()] = true
	}
	require.Empty(t, a.keys.ready)
}

// TestT12_GrantEndsWithWhateverOpenedIt asks about credentials of all kinds, also
// after a restart.
func TestT12_GrantEndsWithWhateverOpenedIt(t *testing.T) {
	s, c := openStore(t, t.TempDir()), &clock{now: start}
	ended := map[string]bool{}
	good := func(id Identity, at time.Time) error {
		if id.Kind == KindCA && len(id.Path) != 1 || ended[id.Name] || !id.NotAfter.IsZero() && at.After(id.NotAfter) {
			return &Refusal{Code: CodeRevoked, Reason: "it was deleted", Identity: id}
		}
		return nil
	}
	g := openGrants(t, s, c)
	g.Good = good
	grants := map[string]Token{}
	for name, id := range map[string]Identity{
		"ca":  {Kind: KindCA, ID: 7, Name: "ca", Serial: "1f", Fingerprint: Digest{1}, Path: []Hop{{Serial: "1f", Issuer: Digest{2}, By: "a"}}},
		"pin": {Kind: KindPin, ID: 8, Name: "pin", Fingerprint: Digest{2}, NotAfter: start.Add(time.Minute)},
		"url": {Kind: KindURL, ID: 9, Name: "url", Fingerprint: Digest{3}},
	} {
		require.NoError(t, g.OpenFor(t.Context(), name, "machine-"+name, "node", id))
		var err error
		grants[name], _, err = g.Mint(t.Context(), name, id.Fingerprint)
		require.NoError(t, err)
	}
	redeem := func(name string) string {
		_, err := g.Redeem(t.Context(), grants[name], testAddr(1))
		return code(t, err)
	}
	for name := range grants {
		require.Empty(t, redeem(name))
	}
	ended["ca"], ended["url"] = true, true
	c.Add(2 * time.Minute)
	for range 2 {
		for name := range grants {
			require.Equal(t, CodeGrantBurned, redeem(name), name)
		}
		g = openGrants(t, s, c)
		g.Good = good
	}
	ended["ca"] = false
	require.Empty(t, redeem("ca"), "it is asked each time")
}

// TestRotationsUnderLoad has machines come while all that can change does.
func TestRotationsUnderLoad(t *testing.T) {
	cfg, c := testConfig(t)
	a := openAuthority(t, cfg)
	cert := issue(t, a, "rack1")
	id, err := a.Verify([]*x509.Certificate{cert}, c.Now())
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var machines sync.WaitGroup
	defer machines.Wait()
	defer stop()
	failed := make(chan error, 4)
	for range 2 {
		machines.Go(func() {
			for ctx.Err() == nil {
				_, err := a.Verify([]*x509.Certificate{cert}, c.Now())
				err = errors.Join(err, a.Good(id, c.Now()))
				root := a.Generations()[0].Root
				for _, leaf := range append(a.Leafs(1), a.Leafs(0)...) {
					err = errors.Join(err, clientTrusts(leaf, "boot.example.net", c.Now(), root))
				}
				if err != nil {
					failed <- err
					return
				}
			}
		})
	}
	machines.Go(func() {
		for ctx.Err() == nil {
			if _, err := a.renewIfDue(ctx); err != nil {
				failed <- err
				return
			}
		}
	})
	for range 3 {
		_, err := a.Rotate(t.Context())
		require.NoError(t, err)
		for range 3 { // as if their time had come
			a.renewing.Lock()
			leafs, err := a.renewLeafs(t.Context(), newest(a), nil)
			newest(a).leafs.Store(&leafs)
			a.renewing.Unlock()
			require.NoError(t, err)
		}
	}
	_, err = a.RotateRoot(t.Context())
	require.NoError(t, err)
	_, err = a.RotateRoot(t.Context())
	require.NoError(t, err)
	require.NoError(t, a.Drop(t.Context(), 2))
	stop()
	machines.Wait()
	require.Empty(t, failed)
	require.NoError(t, verifies(a, cert))
}
