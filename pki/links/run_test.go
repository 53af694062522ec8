package links

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

func TestUses(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	link, _ := create(t, l, Spec{Kind: Chain, Name: "a"})
	other, _ := create(t, l, Spec{Kind: UEFI, Name: "a", Set: 1})
	l.Used(Chain, link.ID, uuidA, start)
	l.Used(Chain, link.ID, uuidB, start.Add(time.Minute))
	l.Used(Chain, link.ID, uuidA, start.Add(time.Hour))
	l.Used(UEFI, other.ID, "", start)
	l.Used(UEFI, 99, "", start) // of no link
	last := start.Add(time.Hour)
	for range 2 {
		got, _ := l.Get(Chain, link.ID)
		require.Equal(t, int64(3), got.Uses)
		require.True(t, last.Equal(*got.LastUsed))
		require.Equal(t, []Use{{uuidA, last}, {uuidB, start.Add(time.Minute)}}, got.UsedBy)
		got = l.OfSet(1)[0]
		require.Equal(t, int64(1), got.Uses)
		require.Empty(t, got.UsedBy)

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, l.Run(ctx), "it writes what is left")
		w.reopen(enough)
		l = w.open()
	}
	require.NotContains(t, l.tallies, useKey(UEFI, 99))

	for i := range 2 * maxUsers {
		l.Used(Chain, link.ID, fmt.Sprint(i), start)
	}
	got, _ := l.Get(Chain, link.ID)
	require.Equal(t, int64(3+2*maxUsers), got.Uses)
	require.Len(t, got.UsedBy, maxUsers)
	require.Equal(t, fmt.Sprint(2*maxUsers-1), got.UsedBy[0].Machine)
	require.True(t, last.Equal(*got.LastUsed), "the clock went back")

	got, err := l.Revoke(t.Context(), Chain, link.ID)
	require.NoError(t, err)
	require.Equal(t, int64(3+2*maxUsers), got.Uses)
	l.flush(t.Context())
	l.sweep(t.Context())
	entries, err := w.store.List(t.Context(), usePrefix)
	require.NoError(t, err)
	require.Len(t, entries, 1, "a link takes its uses with it")
	require.Len(t, l.tallies, 1)
}

// TestUsesOfALinkThatEndsMeanwhile are written by nobody.
func TestUsesOfALinkThatEndsMeanwhile(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	link, _ := create(t, l, Spec{Kind: Chain, Name: "a"})
	before := l.liveByUse()
	l.Used(Chain, link.ID, uuidA, start)
	_, err := l.Revoke(t.Context(), Chain, link.ID)
	require.NoError(t, err)
	require.NoError(t, l.flushUse(t.Context(), useKey(Chain, link.ID), before[useKey(Chain, link.ID)]))
	_, err = w.store.Get(t.Context(), useKey(Chain, link.ID))
	require.ErrorIs(t, err, store.ErrNotFound)
}

func TestRevokedIsRememberedFor90Days(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	link, token := create(t, l, Spec{Kind: Chain, Name: "a"})
	_, kept := create(t, l, Spec{Kind: Chain, Name: "b", ExpiresAt: later(time.Hour)})
	_, err := l.Revoke(t.Context(), Chain, link.ID)
	require.NoError(t, err)
	w.wait(90 * 24 * time.Hour)
	l.sweep(t.Context())
	require.Equal(t, pki.CodeRevoked, found(t, l, Chain, token, HTTPS, w.now()))
	w.wait(1)
	l.sweep(t.Context())
	require.Equal(t, pki.CodeUnknownToken, found(t, l, Chain, token, HTTPS, w.now()))
	require.Equal(t, pki.CodeExpired, found(t, l, Chain, kept, HTTPS, w.now()), "what expired stays until it is revoked")
	require.Equal(t, pki.CodeUnknownToken, found(t, w.open(), Chain, token, HTTPS, w.now()))
	link, _ = create(t, l, Spec{Kind: Chain, Name: "a"})
	require.Equal(t, int64(3), link.ID)
}

func TestRevokedIsBounded(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	const extra = 20
	_, token := create(t, l, Spec{Kind: Chain, Name: "a"})
	w.fill(l, maxRevoked+extra, Spec{Kind: Chain}, func(n int, r *record) { r.Revoked = start.Add(time.Duration(n) * time.Second) })
	l.sweep(t.Context())
	rest := decodeAll(l.mirror.List(recordPrefix))
	require.Len(t, rest, maxRevoked+1)
	for _, r := range rest {
		require.False(t, !r.Revoked.IsZero() && r.Revoked.Before(start.Add(extra*time.Second)), "the oldest go first")
	}
	require.Empty(t, found(t, l, Chain, token, HTTPS, start))
}

func TestLinksOfSetsThatAreGoneEnd(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	_, gone := create(t, l, Spec{Kind: UEFI, Name: "a", Set: 7})
	_, kept := create(t, l, Spec{Kind: UEFI, Name: "a", Set: 8})
	_, chain := create(t, l, Spec{Kind: Chain, Name: "a"})
	w.gone[7], w.gone[0] = true, true
	changed := l.Changed()
	l.sweep(t.Context())
	<-changed
	require.Equal(t, pki.CodeRevoked, found(t, l, UEFI, gone, HTTPS, start))
	require.Empty(t, found(t, l, UEFI, kept, HTTPS, start))
	require.Empty(t, found(t, l, Chain, chain, HTTPS, start))
	require.Len(t, w.open().List(UEFI), 1)
}

// TestRunEnds: Run does its work and ends with its context.
func TestRunEnds(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	create(t, l, Spec{Kind: UEFI, Name: "a", Set: 7})
	w.gone[7] = true
	changed := l.Changed()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	<-changed // by the sweep at its beginning
	cancel()
	require.NoError(t, <-ended)
}
