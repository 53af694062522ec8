package tftp

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestT04_Gate(t *testing.T) {
	g := newGate(Limits{Transfers: 5, PerAddress: 2, Unanswered: 3}.withDefaults())
	admit := func(client, packet string) (context.Context, *ticket, error) {
		return g.admit(t.Context(), netip.MustParseAddrPort(client), []byte(packet))
	}
	ctx1, t1, err := admit("10.0.0.1:1000", "a")
	require.NoError(t, err)
	_, _, err = admit("10.0.0.1:1000", "a")
	require.ErrorIs(t, err, errRepeated)
	ctx2, t2, err := admit("10.0.0.1:1000", "b") // same port, another question
	require.NoError(t, err)
	_, _, err = admit("10.0.0.1:1001", "a")
	require.ErrorIs(t, err, errPerAddress)

	t1.answered()
	_, _, err = admit("10.0.0.2:1", "a")
	require.NoError(t, err)
	_, _, err = admit("10.0.0.3:1", "a")
	require.NoError(t, err)
	require.NoError(t, ctx2.Err())
	_, t5, err := admit("10.0.0.4:1", "a")
	require.NoError(t, err)
	require.ErrorIs(t, context.Cause(ctx2), errEvicted, "the oldest that has not answered")
	require.NoError(t, ctx1.Err(), "the oldest of all has answered")

	_, _, err = admit("10.0.0.5:1", "a")
	require.ErrorIs(t, err, errTransfers, "an evicted one counts until it has ended")
	t2.answered() // too late
	t2.release(1)
	_, t6, err := admit("10.0.0.5:1", "a")
	require.NoError(t, err)

	// A client that has been answered, or whose transfer has ended, may ask again.
	t5.release(1)
	_, _, err = admit("10.0.0.4:1", "a")
	require.NoError(t, err)
	t1.release(0)
	t6.release(1)
	require.Equal(t, 3, g.transfers)
	require.Equal(t, map[netip.Addr]int{
		netip.MustParseAddr("10.0.0.2"): 1, netip.MustParseAddr("10.0.0.3"): 1, netip.MustParseAddr("10.0.0.4"): 1,
	}, g.addresses)
	require.LessOrEqual(t, g.unanswered.Len(), 3)
	require.Len(t, g.asked, g.unanswered.Len())
}

func TestT04_FloodPushesOutItself(t *testing.T) {
	g := newGate(Limits{Unanswered: 10}.withDefaults())
	real, _, err := g.admit(t.Context(), netip.MustParseAddrPort("10.9.0.1:1"), nil)
	require.NoError(t, err)
	var oldest context.Context
	for i := range 100 {
		ctx, _, err := g.admit(t.Context(), netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i % 2), byte(i)}), 1), nil)
		require.NoError(t, err)
		if i == 0 {
			oldest = ctx
		}
	}
	require.NoError(t, real.Err(), "alone in its network, and first to come")
	require.ErrorIs(t, context.Cause(oldest), errEvicted)
	require.Equal(t, 10, g.unanswered.Len())
	require.Len(t, g.crowds, 3)
}

func TestT02_GateSpendsAndRefunds(t *testing.T) {
	g := newGate(Limits{NetworkReplies: 3, PerAddress: 1000}.withDefaults()) // 24 replies: 8 requests
	ask := func(n uint16) *ticket {
		_, k, err := g.admit(t.Context(), netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), n), nil)
		if err != nil {
			require.ErrorIs(t, err, errBudget)
			return nil
		}
		return k
	}
	for n := range uint16(100) {
		k := ask(n)
		require.NotNil(t, k, "answered transfers cost nothing")
		k.answered()
		k.release(0)
	}
	n := uint16(100)
	for k := ask(n); k != nil; k = ask(n) {
		k.release(1)
		n++
	}
	require.InDelta(t, 22, n-100, 2, "one reply each of 24")
}
