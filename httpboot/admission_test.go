package httpboot

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
)

// TestFirstComeFirstServed lets two machines boot at a time.
func TestFirstComeFirstServed(t *testing.T) {
	a, now := &admission{}, time.Unix(1_000_000, 0)
	enter := func(machine string) string {
		ok, ahead, wait := a.enter(machine, 2, now)
		if ok {
			return "boots"
		}
		require.GreaterOrEqual(t, wait, 2*time.Second)
		require.LessOrEqual(t, wait, longestPause*3/2)
		require.Zero(t, wait%time.Second, "iPXE sleeps whole seconds")
		return fmt.Sprint(ahead)
	}
	for _, step := range []struct{ machine, want, why string }{
		{"a", "boots", ""},
		{"b", "boots", ""},
		{"c", "0", "next"},
		{"d", "1", ""},
		{"c", "0", "keeps its place in the queue"},
		{"a", "boots", "begins anew, in its own place"},
		{"-b", "", "b is done"},
		{"e", "2", "the free place is c's"},
		{"d", "1", "and not d's"},
		{"c", "boots", ""},
		{"-a", "", ""},
		{"d", "boots", ""},
		{"e", "0", ""},
		{"-c", "", ""},
		{"-d", "", ""},
		{"f", "boots", "there is one place more than e needs"},
		{"e", "boots", ""},
	} {
		if done, ok := strings.CutPrefix(step.machine, "-"); ok {
			a.end(done)
			continue
		}
		require.Equal(t, step.want, enter(step.machine), "%s: %s", step.machine, step.why)
	}
}

// TestPlacesOfThoseWhoHaveGone are free after a while, and nobody waits for them.
func TestPlacesOfThoseWhoHaveGone(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	boots := func(a *admission, machine string) bool { ok, _, _ := a.enter(machine, 1, now); return ok }
	count := func(a *admission) [2]int { booting, waiting := a.counts(now); return [2]int{booting, waiting} }

	a := &admission{}
	require.True(t, boots(a, "never fetches"))
	require.False(t, boots(a, "next"))
	now = now.Add(placeIdle + sweepEvery)
	require.True(t, boots(a, "next"))

	a = &admission{}
	require.True(t, boots(a, "slow"))
	ended := a.fetches("slow", now)
	now = now.Add(placeIdle + sweepEvery)
	require.Equal(t, [2]int{1, 0}, count(a), "a download runs")
	now = now.Add(placeLimit)
	require.Equal(t, [2]int{0, 0}, count(a), "but not for ever")
	ended(true, now)

	a = &admission{}
	require.True(t, boots(a, "boots"))
	require.False(t, boots(a, "leaves"))
	require.False(t, boots(a, "stays"))
	for range 10 {
		now = now.Add(15 * time.Second)
		a.fetches("boots", now)(false, now)
		require.False(t, boots(a, "stays"))
	}
	a.fetches("boots", now)(true, now)
	require.True(t, boots(a, "stays"), "who was before it has gone")
}

// TestNobodyWaitsForEver boots a thousand machines in tens, in which each takes
// what the script tells it.
func TestNobodyWaitsForEver(t *testing.T) {
	a, now := &admission{}, time.Unix(1_000_000, 0)
	const boot = 20 * time.Second
	wakes := map[string]time.Time{}
	for i := range 1000 {
		wakes[fmt.Sprint(i)] = now
	}
	done, order := map[string]time.Time{}, 0
	for ; len(wakes) > 0 && order < 100_000; order++ {
		for machine, end := range done {
			if !end.After(now) {
				a.end(machine)
				delete(done, machine)
			}
		}
		for machine, at := range wakes {
			if at.After(now) {
				continue
			}
			ok, _, wait := a.enter(machine, 10, now)
			if wakes[machine] = now.Add(wait); ok {
				done[machine] = now.Add(boot)
				delete(wakes, machine)
			}
		}
		require.LessOrEqual(t, len(a.booting), 10)
		now = now.Add(time.Second)
	}
	require.Empty(t, wakes)
	require.Less(t, now.Sub(time.Unix(1_000_000, 0)), 1000/10*(boot+shortestPause*2), "places do not stay free for long")
}

func TestQueueIsShownOnTheConsole(t *testing.T) {
	w := start(t)
	for i := range defaultBooting {
		_, _, _ = w.server.admission.enter(fmt.Sprint(i), defaultBooting, time.Now())
	}
	c := w.client(client{cert: w.setCert()})
	a := w.do(c, http.MethodGet, "https://ipxe.test"+testQuery)
	require.Equal(t, http.StatusOK, a.status)
	require.Regexp(t, `^#!ipxe\necho nestboot: this machine is the next; trying again in [0-9]+ seconds\nsleep [0-9]+ \|\|\n$`, a.body)
	e := w.event(boot.StageScript, "this machine is the next")
	require.Equal(t, boot.CodeQueued, e.Code)

	w.server.admission.end("7")
	a = w.do(c, http.MethodGet, "https://ipxe.test"+testQuery)
	require.Contains(t, a.body, "\nkernel ")
	booting, waiting := w.server.admission.counts(time.Now())
	require.Equal(t, [2]int{defaultBooting, 0}, [2]int{booting, waiting})

	image := "https://ipxe.test/ipxe/images/lab/vmlinuz"
	require.Equal(t, http.StatusOK, w.do(c, http.MethodGet, image).status)
	booting, _ = w.server.admission.counts(time.Now())
	require.Equal(t, defaultBooting, booting, "its own initrd is still to come")
	id := between(t, a.body, "/ipxe/initrd/", " ")
	require.Equal(t, http.StatusOK, w.do(c, http.MethodGet, "https://ipxe.test/ipxe/initrd/"+id).status)
	booting, _ = w.server.admission.counts(time.Now())
	require.Equal(t, defaultBooting-1, booting, "it has all of its files")
}

func TestFailedDownloadFreesThePlace(t *testing.T) {
	w := start(t)
	w.server.Site.Image = func(string, string) (ImageFile, bool) { return bigImage(), true }
	c := w.client(client{cert: w.setCert()})
	w.do(c, http.MethodGet, "https://ipxe.test"+testQuery)
	res, err := c.Get("https://ipxe.test/ipxe/images/lab/vmlinuz") //nolint:noctx // closed at once
	require.NoError(t, err)
	_, err = io.CopyN(io.Discard, res.Body, 1<<20)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Eventually(t, func() bool { n, _ := w.server.admission.counts(time.Now()); return n == 0 }, 5*time.Second, time.Millisecond)
}
