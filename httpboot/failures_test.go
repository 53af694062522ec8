package httpboot

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/pki"
)

// TestT12_FailedAttemptsAreLimitedPerAddress has one address fail in every
// way, while a machine behind the same address boots.
func TestT12_FailedAttemptsAreLimitedPerAddress(t *testing.T) {
	w := start(t)
	w.who.give(pki.KindURL, "provider-a", chainToken, time.Time{}, "https")
	stranger, good := w.client(client{}), w.client(client{cert: w.setCert()})
	urls := []string{
		"https://ipxe.test" + testQuery, "https://boot.test/chain/" + wrongToken, "https://boot.test/uefi/" + wrongToken + "/x.efi",
		"https://boot.test/ipxe/ignition", "https://boot.test/artifacts/" + wrongToken + "/rack1.iso",
	}
	for n := range failBurst {
		require.NotEqual(t, http.StatusTooManyRequests, w.do(stranger, http.MethodGet, urls[n%len(urls)]).status, n)
	}
	w.recorded(boot.StageLockout, 0, "not yet")
	w.mu.Lock()
	before := len(w.events)
	w.mu.Unlock()
	for n := range 4 * failBurst {
		a := w.do(stranger, http.MethodGet, urls[n%len(urls)])
		require.Equal(t, http.StatusTooManyRequests, a.status, n)
		require.Equal(t, codeTooMany+"\n", a.body)
		wait, err := strconv.Atoi(a.header.Get("Retry-After"))
		require.NoError(t, err)
		require.True(t, wait >= 1 && wait <= 10, wait)
	}
	e := w.event(boot.StageLockout, codeTooMany)
	require.Equal(t, "127.0.0.1", e.Addr.String())
	w.mu.Lock()
	require.Len(t, w.events, before+1, "one event for all of them")
	w.mu.Unlock()
	require.Equal(t, http.StatusOK, w.do(good, http.MethodGet, "https://ipxe.test"+testQuery).status, "who proves itself passes")
	require.Equal(t, http.StatusOK, w.do(stranger, http.MethodGet, "https://boot.test/chain/"+chainToken).status)
	grant := w.grant(good)
	require.Equal(t, http.StatusOK, w.do(stranger, http.MethodGet, urls[3], "Authorization", grant).status)
	require.Equal(t, http.StatusOK, w.do(stranger, http.MethodGet, "https://boot.test/rack1/snponly.efi").status, "what needs no proof is served")
	require.Equal(t, http.StatusUnauthorized, w.do(w.client(client{from: "127.0.0.2"}), http.MethodGet, urls[0]).status, "another address has its own")

	w.skew.Store(int64(failEvery))
	require.Equal(t, http.StatusUnauthorized, w.do(stranger, http.MethodGet, urls[0]).status, "once in a while it is told why")
	require.Equal(t, http.StatusTooManyRequests, w.do(stranger, http.MethodGet, urls[0]).status)
	w.skew.Store(int64(time.Hour))
	e = w.event(boot.StageLockout, "over; 81 failed attempts were answered with 429")
	require.False(t, e.Failed())
	w.noSecrets("."+chainToken, "."+wrongToken, grant)
}

func TestT12_FailuresAreBounded(t *testing.T) {
	var f failures
	at := time.Unix(1_800_000_000, 0)
	addr := func(n int) netip.Addr {
		return netip.MustParseAddr(fmt.Sprintf("fd00:0:%x:%x::%x", n>>8, n&0xff, n)) // a network each
	}
	for range 2 * failBurst {
		f.fail(addr(0), at)
	}
	wait, begins := f.fail(netip.MustParseAddr("fd00::beef"), at)
	require.Equal(t, failEvery, wait, "of the same network")
	require.False(t, begins)
	for n := range 3 * maxFailing {
		f.fail(addr(n+1), at)
		require.LessOrEqual(t, len(f.by), maxFailing)
	}
	require.Contains(t, f.by, network(addr(0)), "who is locked out is not forgotten for others")
	for range failBurst {
		for n := range maxFailing {
			f.fail(addr(n+1), at)
		}
	}
	require.LessOrEqual(t, len(f.by), maxFailing)
	require.Empty(t, f.over(at.Add(-time.Hour)), "a clock that is set back ends nothing")
	ended := f.over(at.Add(failBurst * failEvery))
	require.NotEmpty(t, ended)
	require.LessOrEqual(t, len(ended), maxFailing)
	require.Empty(t, f.by)
	require.Empty(t, f.over(at.Add(time.Hour)), "each is told once")
}
