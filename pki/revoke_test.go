package pki

import (
	"context"
	"crypto/x509"
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
	require.ErrorContains(t, err, "revoke certificates of set rack1", "what could not be written down is not called revoked")
	cfg.Store = openStore(t, dir)
	a = openAuthority(t, cfg)
	require.Equal(t, CodeRevoked, refusal(t, verify(first)).Code, "also after a restart")
	require.NoError(t, verify(next))
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
