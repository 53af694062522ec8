package tftp

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var anyTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// drain takes until the budget says no and returns how often it said yes.
func drain(b *budget, client string, now time.Time) (n int) {
	for b.take(netip.MustParseAddr(client), now) {
		n++
	}
	return n
}

func TestT02_Budget(t *testing.T) {
	l := Limits{NetworkReplies: 12, TotalReplies: 1000}
	b := newBudget(l, anyTime)
	require.Equal(t, 12*burstSeconds/repliesPerRequest, drain(b, "10.0.0.1", anyTime))
	require.Zero(t, drain(b, "10.0.0.254", anyTime), "same /24")
	require.Equal(t, 32, drain(b, "10.0.1.1", anyTime), "another /24")
	require.Equal(t, 32, drain(b, "2001:db8::1", anyTime))
	require.Zero(t, drain(b, "2001:db8::ffff:1", anyTime), "same /64")
	require.Equal(t, 32, drain(b, "fe80::1%eth0", anyTime))
	require.Zero(t, drain(b, "fe80::1%eth1", anyTime), "a zone is no network")

	require.Equal(t, 4, drain(b, "10.0.0.1", anyTime.Add(time.Second)), "a second's worth")
	b.give(netip.MustParseAddr("10.0.0.1"), 3)
	require.Equal(t, 1, drain(b, "10.0.0.1", anyTime.Add(time.Second)), "what was answered")
	require.Equal(t, 32, drain(b, "10.0.0.1", anyTime.Add(time.Hour)), "no more than the burst is saved up")
}

func TestT02_QuietNetworksKeepAReserve(t *testing.T) {
	b := newBudget(Limits{}.withDefaults(), anyTime)
	for s := range 20 {
		now, taken := anyTime.Add(time.Duration(s)*time.Second), 0
		for i := range 30 * 400 {
			if b.take(netip.AddrFrom4([4]byte{10, 0, byte(i % 30), 1}), now) {
				taken += repliesPerRequest
			}
		}
		if s == 0 {
			require.LessOrEqual(t, taken, 2048*burstSeconds, "what was saved up")
			continue
		}
		require.LessOrEqual(t, taken, 2048+repliesPerRequest)
		require.True(t, b.take(netip.AddrFrom4([4]byte{10, 9, byte(s), 1}), now), "second %d", s)
	}
}

func TestT04_BudgetMemory(t *testing.T) {
	b := newBudget(Limits{}.withDefaults(), anyTime)
	for i := range 3 * maxNetworks {
		b.take(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), anyTime)
		require.LessOrEqual(t, len(b.networks), maxNetworks)
	}
	// Networks that have been quiet are forgotten first.
	later := anyTime.Add(time.Minute)
	b = newBudget(Limits{}.withDefaults(), anyTime)
	for i := range maxNetworks {
		b.network(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), anyTime)
	}
	busy := netip.MustParseAddr("10.0.0.1")
	drain(b, busy.String(), later)
	b.take(netip.MustParseAddr("192.168.0.1"), later)
	require.Len(t, b.networks, 2)
	require.False(t, b.take(busy, later))
}
