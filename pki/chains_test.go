package pki

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A chain is remembered for as long as each of its certificates is valid, and
// among the generations that it was built of.
func TestChainsEnd(t *testing.T) {
	day := func(n int) time.Time { return start.AddDate(0, 0, n) }
	valid := func(from, until int) *x509.Certificate {
		return &x509.Certificate{NotBefore: day(from), NotAfter: day(until)}
	}
	var c chains
	gs, gen := &generations{}, &generation{number: 2}
	_, known := c.find(gs, Digest{1}, day(3))
	require.False(t, known)
	c.add(gs, Digest{1}, gen, []*x509.Certificate{valid(1, 9), valid(2, 5), valid(0, 30)})
	for at, want := range map[int]bool{1: false, 2: true, 5: true, 6: false} {
		got, known := c.find(gs, Digest{1}, day(at))
		require.Equal(t, want, known, "on day %d", at)
		if known {
			require.Same(t, gen, got)
		}
	}
	_, known = c.find(&generations{}, Digest{1}, day(3))
	require.False(t, known, "of other generations nothing is known")
	_, known = c.find(gs, Digest{2}, day(3))
	require.False(t, known)
	for n := range maxChains + 5 {
		c.add(gs, Digest{2, byte(n), byte(n >> 8)}, gen, []*x509.Certificate{valid(0, 9)})
	}
	require.LessOrEqual(t, len(c.by), maxChains)
	c.add(&generations{}, Digest{3}, gen, []*x509.Certificate{valid(0, 9)})
	require.Len(t, c.by, 1)
}
