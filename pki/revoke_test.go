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
	require.ErrorContains(t, err, "revoke certificates of set rack1", "it could not be written down")
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
