package links

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

// TestT12_FindMatrix is each state of a link by each protocol: what Find, Good
// and Explain say.
func TestT12_FindMatrix(t *testing.T) {
	for _, kind := range kinds() {
		w := newWorld(t)
		l := w.open()
		links, tokens := map[string]Link{}, map[string]string{}
		for name, spec := range map[string]Spec{
			"both": {Protocols: []string{HTTP, HTTPS}}, "secure": {}, "plain": {Protocols: []string{HTTP}},
			"ends": {ExpiresAt: later(time.Hour)}, "revoked": {}, "revoked and over": {ExpiresAt: later(time.Minute), Protocols: []string{HTTP}},
		} {
			spec.Kind, spec.Name = kind, name
			if kind == UEFI {
				spec.Set = 3
			}
			links[name], tokens[name] = create(t, l, spec)
		}
		for _, name := range []string{"revoked", "revoked and over"} {
			_, err := l.Revoke(t.Context(), kind, links[name].ID)
			require.NoError(t, err)
		}
		tokens["guess"] = pki.NewSecret().Encode()
		tests := []struct {
			link, over string
			after      time.Duration
			want, good string
		}{
			{"both", HTTPS, 0, "", ""},
			{"both", HTTP, 0, "", ""},
			{"both", HTTPS, -365 * 24 * time.Hour, "", ""}, // a clock that lags refuses nobody
			{"both", "", 0, pki.CodeNotAllowed, ""},
			{"both", asBefore + " ", 0, pki.CodeNotAllowed, ""},
			{"secure", HTTPS, 100 * 365 * 24 * time.Hour, "", ""},
			{"secure", HTTP, 0, pki.CodeNotAllowed, ""},
			{"plain", HTTP, 0, "", ""},
			{"plain", HTTPS, 0, pki.CodeNotAllowed, ""},
			{"ends", HTTPS, time.Hour - 1, "", ""},
			{"ends", HTTPS, time.Hour, pki.CodeExpired, pki.CodeExpired},
			{"ends", HTTP, time.Hour, pki.CodeExpired, pki.CodeExpired},
			{"ends", HTTP, 0, pki.CodeNotAllowed, ""},
			{"revoked", HTTPS, 0, pki.CodeRevoked, pki.CodeRevoked},
			{"revoked and over", HTTPS, time.Hour, pki.CodeRevoked, pki.CodeRevoked},
			{"guess", HTTPS, 0, pki.CodeUnknownToken, pki.CodeUnknownToken},
		}
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s/%s over %s after %s", kind, tt.link, tt.over, tt.after), func(t *testing.T) {
				at, link := start.Add(tt.after), links[tt.link]
				id, _, err := l.Find(kind, tokens[tt.link], tt.over, at)
				require.Equal(t, tt.want, code(t, err))
				if err != nil {
					require.Zero(t, id)
					var refusal *pki.Refusal
					require.ErrorAs(t, err, &refusal)
					require.Equal(t, link.Name, refusal.Identity.Name, "the event says which")
					require.Equal(t, link.ID, refusal.Identity.ID)
					require.NotEmpty(t, refusal.Reason)
				}
				require.Equal(t, tt.good, code(t, l.Good(pki.Identity{Kind: kind, ID: link.ID, Fingerprint: link.digest}, at)))
				steps := l.Explain(tokens[tt.link], at)
				require.Equal(t, tt.good, steps[len(steps)-1].Code)
			})
		}
	}
}

func TestExplain(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	_, one := create(t, l, Spec{Kind: Chain, Name: "edge", Machines: []string{uuidA}})
	_, two := create(t, l, Spec{Kind: Chain, Name: "lab", Machines: []string{uuidA, uuidB}, Protocols: []string{HTTPS, HTTP}, ExpiresAt: later(time.Hour)})
	ended, three := create(t, l, Spec{Kind: UEFI, Name: "edge", Set: 7, ExpiresAt: later(time.Hour)})
	tests := []struct {
		name, token string
		want        []pki.Step
	}{
		{"no token", "hunter2", []pki.Step{{Rule: "token", Code: "unknown-token", Reason: "it is no token: want the 43 characters between two slashes of the URL"}}},
		{"unknown", pki.NewSecret().Encode(), []pki.Step{
			{Rule: "token", Reason: "it has the form of a token"},
			{Rule: "url", Code: "unknown-token", Reason: "no URL has this token, or it was revoked more than 90 days ago"},
		}},
		{"good", one, []pki.Step{
			{Rule: "token", Reason: "it has the form of a token"},
			{Rule: "url", Reason: `it belongs to the iPXE chain URL 1 "edge"`},
			{Rule: "revocation", Reason: "it is not revoked"},
			{Rule: "expiry", Reason: "it has no end"},
			{Rule: "protocol", Reason: "good over https"},
			{Rule: "machines", Reason: "only machine " + uuidA + " may boot with it"},
		}},
		{"good for a while", two, []pki.Step{
			{Rule: "token", Reason: "it has the form of a token"},
			{Rule: "url", Reason: `it belongs to the iPXE chain URL 2 "lab"`},
			{Rule: "revocation", Reason: "it is not revoked"},
			{Rule: "expiry", Reason: "good until 2026-10-01 13:00:00"},
			{Rule: "protocol", Reason: "good over https and http"},
			{Rule: "machines", Reason: "only 2 machines may boot with it: " + uuidA + ", " + uuidB},
		}},
		{"good for files", three, []pki.Step{
			{Rule: "token", Reason: "it has the form of a token"},
			{Rule: "url", Reason: `it belongs to the UEFI HTTP Boot URL 1 "edge" of artifact set 7`},
			{Rule: "revocation", Reason: "it is not revoked"},
			{Rule: "expiry", Reason: "good until 2026-10-01 13:00:00"},
			{Rule: "protocol", Reason: "good over https"},
			{Rule: "machines", Reason: "it opens files and boots nothing"},
		}},
	}
	for _, tt := range tests {
		require.Equal(t, tt.want, l.Explain(tt.token, start), tt.name)
	}
	require.Equal(t, pki.Step{Rule: "expiry", Code: "expired", Reason: "expired at 2026-10-01 13:00:00"}, l.Explain(three, start.Add(time.Hour))[3])
	_, err := l.Revoke(t.Context(), UEFI, ended.ID)
	require.NoError(t, err)
	require.Equal(t, pki.Step{Rule: "revocation", Code: "revoked", Reason: "revoked at 2026-10-01 12:00:00"}, l.Explain(three, start.Add(time.Hour))[2])
}

// belowReserve is a reserve that the disk has a half of.
func (w *world) belowReserve() int64 {
	w.t.Helper()
	var fs unix.Statfs_t
	require.NoError(w.t, unix.Statfs(w.dir, &fs))
	return 2 * int64(fs.Bavail) * fs.Bsize
}

// TestT12_RevokeWithoutSpace: what an operator revokes is refused at once,
// whatever the disk says, and outlives a restart once it has been written down.
func TestT12_RevokeWithoutSpace(t *testing.T) {
	const noSpaceAtAll = 1 << 60 // a reserve that no disk has
	for name, reserve := range map[string]int64{"below the reserve": 0, "no space at all": noSpaceAtAll} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			l := w.open()
			one, token := create(t, l, Spec{Kind: Chain, Name: "a"})
			_, ofSet := create(t, l, Spec{Kind: UEFI, Name: "a", Set: 7})
			_, kept := create(t, l, Spec{Kind: UEFI, Name: "a", Set: 8})
			if reserve == 0 {
				reserve = w.belowReserve()
			}
			w.reopen(reserve)
			l = w.open()
			_, err := l.Create(t.Context(), Spec{Kind: Chain, Name: "b"})
			require.ErrorIs(t, err, store.ErrNoSpace)

			changed := l.Changed()
			ended, err := l.Revoke(t.Context(), Chain, one.ID)
			require.Equal(t, one.ID, ended.ID)
			require.Equal(t, start, ended.Revoked)
			<-changed
			changed = l.Changed()
			errSet := l.RevokeSet(t.Context(), 7)
			<-changed
			require.Equal(t, pki.CodeRevoked, found(t, l, Chain, token, HTTPS, start))
			require.Equal(t, pki.CodeRevoked, found(t, l, UEFI, ofSet, HTTPS, start))
			require.Empty(t, found(t, l, UEFI, kept, HTTPS, start))
			if reserve != noSpaceAtAll {
				require.NoError(t, err)
				require.NoError(t, errSet)
				require.Empty(t, l.List(Chain))
			} else {
				require.ErrorIs(t, err, store.ErrNoSpace)
				require.ErrorIs(t, errSet, store.ErrNoSpace)
				require.Equal(t, start, l.List(Chain)[0].Revoked, "listed until it is written down")
				l.flush(t.Context())
				require.Contains(t, w.logged(), "a restart would forget that; trying again")
				_, err = l.Revoke(t.Context(), Chain, one.ID)
				require.ErrorIs(t, err, store.ErrNoSpace, "not unknown")
				w.reopen(enough)
				l.cfg.Store = w.store // there is room again
				l.flush(t.Context())
			}
			w.reopen(enough)
			l = w.open()
			require.Equal(t, pki.CodeRevoked, found(t, l, Chain, token, HTTPS, start))
			require.Equal(t, pki.CodeRevoked, found(t, l, UEFI, ofSet, HTTPS, start))
			require.Empty(t, found(t, l, UEFI, kept, HTTPS, start))
			_, err = l.Revoke(t.Context(), Chain, one.ID)
			require.ErrorIs(t, err, ErrUnknown)
		})
	}
}

// TestT12_WhoIsToldSeesIt: whoever was told of a change and asks then is
// refused, however the revocation gets from memory to the store meanwhile.
func TestT12_WhoIsToldSeesIt(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	for n := range rounds {
		link, token := create(t, l, Spec{Kind: Chain, Name: fmt.Sprint(n)})
		id, _, err := l.Find(Chain, token, HTTPS, start)
		require.NoError(t, err)
		var watchers sync.WaitGroup
		var passed atomic.Int64
		changed := l.Changed()
		for range 16 {
			watchers.Go(func() {
				<-changed
				for range 100 {
					if l.Good(id, start) == nil {
						passed.Add(1)
					}
				}
			})
		}
		_, err = l.Revoke(t.Context(), Chain, link.ID)
		require.NoError(t, err)
		watchers.Wait()
		require.Zero(t, passed.Load())
		require.Empty(t, l.condemned)
	}
}

func TestRevokeManyOfASet(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	const n = revokeBatch + 10
	w.fill(l, n, Spec{Kind: UEFI, Set: 7}, func(int, *record) {})
	_, kept := create(t, l, Spec{Kind: UEFI, Name: "a", Set: 77})
	require.NoError(t, l.RevokeSet(t.Context(), 7))
	require.NoError(t, l.RevokeSet(t.Context(), 7))
	require.Len(t, w.open().List(UEFI), 1)
	require.Empty(t, found(t, l, UEFI, kept, HTTPS, start))
	require.Equal(t, n, strings.Count(w.logged(), "url was revoked"))
}

func TestRevokeUnknown(t *testing.T) {
	l := newWorld(t).open()
	_, err := l.Revoke(t.Context(), Chain, 1)
	require.ErrorIs(t, err, ErrUnknown)
	_, err = l.Revoke(t.Context(), pki.KindSet, 1)
	require.ErrorIs(t, err, ErrUnknown)
	require.NoError(t, l.RevokeSet(t.Context(), 1))
}

// TestDeadStore: links that were loaded go on working, and what is revoked is
// refused.
func TestDeadStore(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	link, token := create(t, l, Spec{Kind: Chain, Name: "a"})
	require.NoError(t, w.store.Close())
	require.Empty(t, found(t, l, Chain, token, HTTPS, start))
	l.Used(Chain, link.ID, uuidA, start)
	_, err := l.Create(t.Context(), Spec{Kind: Chain, Name: "b"})
	require.ErrorIs(t, err, store.ErrUnavailable)
	_, err = l.Revoke(t.Context(), Chain, 99)
	require.ErrorIs(t, err, store.ErrUnavailable, "nobody knows whether it is unknown")
	_, err = l.Revoke(t.Context(), Chain, link.ID)
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.Equal(t, pki.CodeRevoked, found(t, l, Chain, token, HTTPS, start))
	l.flush(t.Context())
	l.sweep(t.Context())
	_, err = Open(t.Context(), w.config())
	require.ErrorIs(t, err, store.ErrUnavailable)
}

// TestRevokeGoesOnWithoutItsRequest: the operator's client may hang up.
func TestRevokeGoesOnWithoutItsRequest(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	link, err := l.Create(ctx, Spec{Kind: Chain, Name: "a"})
	require.NoError(t, err)
	_, err = l.Revoke(ctx, Chain, link.ID)
	require.NoError(t, err)
	require.Empty(t, w.open().List(Chain))
}
