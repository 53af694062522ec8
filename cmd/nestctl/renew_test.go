package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestExpiredSetsAreNotRenewed: one of them would have artifact renew --all fail
// for ever.
func TestExpiredSetsAreNotRenewed(t *testing.T) {
	end := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	sets := []set{
		{Name: "new", Status: "ready", Generation: 2},
		{Name: "old", Status: "ready", Generation: 1},
		{Name: "visit", Status: "expired", Generation: 1, ExpiresAt: &end},
		{Name: "late", Status: "expired", Generation: 1}, // its renewal failed until its certificate ended
		{Name: "over", Status: "expired", Generation: 2, ExpiresAt: &end},
	}
	names := func(sets []set) (all []string) {
		for _, s := range sets {
			all = append(all, s.Name)
		}
		return all
	}
	old, expired := leftBehind(sets, 2)
	require.Equal(t, []string{"old", "late"}, names(old))
	require.Equal(t, []string{"visit"}, names(expired))
}
