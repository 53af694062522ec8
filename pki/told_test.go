package pki

import (
	"crypto/x509"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestT12_WhoIsToldSeesIt: whoever asks after Changed has fired finds the
// certificate revoked, for no other signal comes.
func TestT12_WhoIsToldSeesIt(t *testing.T) {
	cfg, _ := testConfig(t)
	a := openAuthority(t, cfg)
	for n := range 60 {
		set := fmt.Sprint("rack", n)
		leaf := issue(t, a, set)
		id, err := a.Verify([]*x509.Certificate{leaf}, start)
		require.NoError(t, err)
		var watchers sync.WaitGroup
		var passed atomic.Int64
		changed := a.Changed()
		for range 16 {
			watchers.Go(func() {
				<-changed
				for range 300 {
					if a.Good(id, start) == nil {
						passed.Add(1)
					}
				}
			})
		}
		_, err = a.RevokeSet(t.Context(), set)
		require.NoError(t, err)
		watchers.Wait()
		require.Zero(t, passed.Load(), n)
	}
}
