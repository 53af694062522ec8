package pki

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/store"
)

// gone is the context of a client that has gone away.
func gone(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// reviveAuthority puts a on a store that works again.
func reviveAuthority(t *testing.T, a *Authority, s *store.Store) {
	t.Helper()
	mirror, err := s.Mirror(t.Context(), certPrefix)
	require.NoError(t, err)
	a.store, a.records.store, a.records.mirror = s, s, mirror
}

func TestT12_RevocationOutlivesItsRequest(t *testing.T) {
	cfg, _ := testConfig(t)
	a := openAuthority(t, cfg)
	one, two, three := issue(t, a, "rack1"), issue(t, a, "rack2"), issue(t, a, "rack3")
	_, err := a.RotateRoot(gone(t))
	require.NoError(t, err)
	require.NoError(t, a.Revoke(gone(t), SerialOf(one)))
	_, err = a.RevokeSet(gone(t), "rack2")
	require.NoError(t, err)
	require.NoError(t, verifies(a, three))
	require.Empty(t, a.records.condemned, "all is written down")
	a = openAuthority(t, cfg)
	require.Equal(t, CodeRevoked, refusal(t, verifies(a, one)).Code)
	require.Equal(t, CodeRevoked, refusal(t, verifies(a, two)).Code)
	require.NoError(t, a.Drop(gone(t), 1))
	require.Equal(t, CodeRevoked, refusal(t, verifies(openAuthority(t, cfg), three)).Code)
}

// TestT12_RunWritesDownWhatCouldNotBe: the store takes writes again.
func TestT12_RunWritesDownWhatCouldNotBe(t *testing.T) {
	cfg, _ := testConfig(t)
	dir := t.TempDir()
	cfg.Store = openStore(t, dir)
	a := openAuthority(t, cfg)
	old, other := issue(t, a, "rack1"), issue(t, a, "rack2")
	_, err := a.RotateRoot(t.Context())
	require.NoError(t, err)
	revoked, kept := issue(t, a, "rack1"), issue(t, a, "rack2")
	require.NoError(t, cfg.Store.Close())

	var unsaved *Unsaved
	require.ErrorAs(t, a.Drop(t.Context(), 1), &unsaved)
	require.ErrorContains(t, unsaved, "generation 1 is dropped from now on, but a restart would forget that")
	require.ErrorContains(t, unsaved, "repeat the command")
	require.ErrorAs(t, a.Revoke(t.Context(), SerialOf(revoked)), &unsaved)
	_, err = a.RevokeSet(t.Context(), "rack1")
	require.ErrorAs(t, err, &unsaved)
	g, known := a.Generation(1)
	require.True(t, known && g.Dropped, "it can be dropped again")
	require.ErrorAs(t, a.Drop(t.Context(), 1), &unsaved)

	cfg.Store = openStore(t, dir)
	reviveAuthority(t, a, cfg.Store)
	require.NoError(t, a.Run(gone(t)))
	for range 2 {
		require.Equal(t, CodeRevoked, refusal(t, verifies(a, old)).Code)
		require.Equal(t, CodeRevoked, refusal(t, verifies(a, other)).Code)
		require.Equal(t, CodeRevoked, refusal(t, verifies(a, revoked)).Code)
		require.NoError(t, verifies(a, kept))
		require.NotContains(t, listing(t, cfg.Dir), "root.key")
		require.Empty(t, a.records.condemned)
		a = openAuthority(t, cfg)
	}
}

func TestUnsavedNamesTheRemedy(t *testing.T) {
	require.ErrorContains(t, &Unsaved{"it is refused", store.ErrNoSpace}, "make room for the store")
	require.ErrorContains(t, &Unsaved{"it is refused", context.DeadlineExceeded}, "repeat the command")
	require.ErrorIs(t, &Unsaved{"it is refused", store.ErrNoSpace}, store.ErrNoSpace)
}

// TestT12_DropWaitsForNobody: a renewal waits for a step-ca, and another change
// for the store.
func TestT12_DropWaitsForNobody(t *testing.T) {
	cfg, _ := testConfig(t)
	a := openAuthority(t, cfg)
	old := issue(t, a, "rack1")
	_, err := a.RotateRoot(t.Context())
	require.NoError(t, err)
	a.renewing.Lock()
	a.changing.Lock()
	changed, dropped := a.Changed(), make(chan error, 1)
	go func() { dropped <- a.Drop(context.Background(), 1) }()
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		require.Fail(t, "it waits")
	}
	require.Equal(t, CodeRevoked, refusal(t, verifies(a, old)).Code)
	require.Nil(t, a.Leafs(1))

	// The change that is under way does not bring it back.
	was := *newest(a)
	was.number = 1
	a.publish(&was)
	require.Nil(t, a.Trust(1))
	a.changing.Unlock()
	a.renewing.Unlock()
	require.NoError(t, <-dropped)
	require.Len(t, openAuthority(t, cfg).Generations(), 1)
}
