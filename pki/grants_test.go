package pki

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/nestboot/nestboot/store"
	"github.com/stretchr/testify/require"
)

func openGrants(t testing.TB, s *store.Store, c *clock) *Grants {
	t.Helper()
	g, err := OpenGrants(context.Background(), s, nil, c.Now)
	require.NoError(t, err)
	return g
}

func testAddr(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }

// code is what an edge would show: a GrantError's code, "done" or "".
func code(t require.TestingT, err error) string {
	var refused *GrantError
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrAlreadyDone):
		return "done"
	case errors.As(err, &refused):
		return refused.Code
	}
	require.NoError(t, err)
	return ""
}

// bootOnce takes a machine through a whole boot.
func bootOnce(t *testing.T, g *Grants, boot, machine string) (grant, done Token) {
	t.Helper()
	require.NoError(t, g.Open(t.Context(), boot, machine, "node1", [32]byte{1}))
	grant, named, err := g.Mint(t.Context(), boot, [32]byte{1})
	require.NoError(t, err)
	require.Equal(t, machine, named)
	s, err := g.Redeem(t.Context(), grant, testAddr(1))
	require.NoError(t, err)
	require.Equal(t, machine, s.Machine)
	done, err = g.MintDone(t.Context(), boot)
	require.NoError(t, err)
	s, err = g.Done(t.Context(), done)
	require.NoError(t, err)
	require.Equal(t, Burned, s.State)
	require.True(t, s.Done)
	return grant, done
}

// player takes steps by name, so that tables can be read.
type player struct {
	g      *Grants
	name   string // of its machine and its boots
	clock  *clock
	grants []Token // in the order of minting
	dones  []Token
}

func (p *player) step(t *testing.T, name string, arg int) string {
	t.Helper()
	ctx := t.Context()
	var err error
	switch name {
	case "open": // by the credential arg
		err = p.g.Open(ctx, p.name, p.name, "node1", [32]byte{byte(arg)})
	case "reboot":
		err = p.g.Open(ctx, p.name+"-2", p.name, "node1", [32]byte{byte(arg)})
	case "mint":
		var grant Token
		if grant, _, err = p.g.Mint(ctx, p.name, [32]byte{byte(arg)}); err == nil {
			p.grants = append(p.grants, grant)
		}
	case "redeem": // the last grant, from address arg
		_, err = p.g.Redeem(ctx, p.grants[len(p.grants)-1], testAddr(byte(arg)))
	case "redeem-first":
		_, err = p.g.Redeem(ctx, p.grants[0], testAddr(byte(arg)))
	case "redeem-guess":
		_, err = p.g.Redeem(ctx, Token{Boot: p.name, Secret: NewSecret()}, testAddr(byte(arg)))
	case "redeem-done":
		_, err = p.g.Redeem(ctx, p.dones[0], testAddr(byte(arg)))
	case "mintdone":
		var done Token
		if done, err = p.g.MintDone(ctx, p.name); err == nil {
			p.dones = append(p.dones, done)
		}
	case "done": // the token minted as number arg
		_, err = p.g.Done(ctx, p.dones[arg])
	case "done-grant":
		_, err = p.g.Done(ctx, p.grants[0])
	case "sweep":
		err = p.g.Sweep(ctx)
	case "minutes":
		p.clock.Add(time.Duration(arg) * time.Minute)
	default:
		t.Fatalf("no such step: %s", name)
	}
	return code(t, err)
}

type step struct {
	name string
	arg  int
	want string
}

func TestT21_Transitions(t *testing.T) {
	begin := []step{{"open", 1, ""}, {"mint", 1, ""}}
	used := append(begin[:2:2], step{"redeem", 7, ""})
	told := append(used[:3:3], step{"mintdone", 0, ""})
	tests := []struct {
		name  string
		after []step
		steps []step
	}{
		{"a whole boot", told, []step{{"done", 0, ""}}},
		{"nothing was opened", nil, []step{{"mint", 1, CodeGrantUnknown}, {"redeem-guess", 7, CodeGrantUnknown}, {"mintdone", 0, CodeGrantUnknown}}},
		{"a boot id is used once", begin, []step{{"open", 1, CodeGrantState}, {"redeem", 7, ""}}},
		{"another certificate", begin[:1], []step{{"mint", 2, CodeGrantOtherCredential}, {"mint", 1, ""}}},
		{"before the initrd", begin[:1], []step{{"redeem-guess", 7, CodeGrantUnknown}, {"mintdone", 0, CodeGrantState}}},
		{"initrd downloaded again", begin, []step{{"mint", 1, ""}, {"redeem-first", 7, CodeGrantUnknown}, {"redeem", 7, ""}}},
		{"initrd after ignition", used, []step{{"mint", 1, CodeGrantState}, {"redeem", 7, ""}}},
		{"guess", used, []step{{"redeem-guess", 7, CodeGrantUnknown}, {"redeem", 7, ""}}},
		{"another address", used, []step{{"redeem", 8, CodeGrantOtherAddress}, {"redeem", 7, ""}}},
		{"five fetches", used, []step{{"redeem", 7, ""}, {"redeem", 7, ""}, {"redeem", 7, ""}, {"redeem", 7, ""}, {"redeem", 7, CodeGrantExhausted}, {"redeem", 8, CodeGrantOtherAddress}}},
		{"minted for 10 minutes", begin, []step{{"minutes", 10, ""}, {"redeem", 7, ""}}},
		{"minted for 11 minutes", begin, []step{{"minutes", 11, ""}, {"redeem", 7, CodeGrantExpired}, {"mint", 1, ""}, {"redeem", 7, ""}}},
		{"used for 10 minutes", used, []step{{"minutes", 10, ""}, {"redeem", 7, ""}}},
		{"used for 11 minutes", used, []step{{"minutes", 11, ""}, {"redeem", 7, CodeGrantExpired}}},
		{"a fetch doesn't prolong", used, []step{{"minutes", 6, ""}, {"redeem", 7, ""}, {"minutes", 6, ""}, {"redeem", 7, CodeGrantExpired}}},
		{"opened for an hour", begin[:1], []step{{"minutes", 60, ""}, {"mint", 1, ""}}},
		{"opened for longer", begin[:1], []step{{"minutes", 61, ""}, {"mint", 1, CodeGrantExpired}}},
		{"after the burn", told, []step{{"done", 0, ""}, {"redeem", 7, CodeGrantBurned}, {"redeem", 8, CodeGrantBurned}, {"mint", 1, CodeGrantBurned}, {"mintdone", 0, CodeGrantBurned}, {"redeem-guess", 7, CodeGrantUnknown}}},
		{"done twice", told, []step{{"done", 0, ""}, {"minutes", 9, ""}, {"done", 0, "done"}, {"redeem", 7, CodeGrantBurned}}},
		{"done within a day", told, []step{{"minutes", 24 * 60, ""}, {"done", 0, ""}}},
		{"done too late", told, []step{{"minutes", 24*60 + 1, ""}, {"done", 0, CodeGrantExpired}}},
		{"tokens of one kind", told, []step{{"done-grant", 0, CodeGrantUnknown}, {"redeem-done", 7, CodeGrantUnknown}, {"done", 0, ""}}},
		{"the last five tokens", told, []step{{"mintdone", 0, ""}, {"mintdone", 0, ""}, {"mintdone", 0, ""}, {"mintdone", 0, ""}, {"mintdone", 0, ""}, {"done", 0, CodeGrantUnknown}, {"done", 1, ""}, {"done", 5, "done"}}},
		{"another boot", told, []step{{"reboot", 1, ""}, {"redeem", 7, CodeGrantBurned}, {"mint", 1, CodeGrantBurned}, {"done", 0, CodeGrantBurned}}},
		{"another boot after the end", told, []step{{"done", 0, ""}, {"reboot", 1, ""}, {"done", 0, "done"}}},
		{"swept too early", used, []step{{"minutes", 24 * 60, ""}, {"sweep", 0, ""}, {"redeem", 7, CodeGrantExpired}}},
		{"swept when opened", begin[:1], []step{{"minutes", 25*60 + 1, ""}, {"sweep", 0, ""}, {"mint", 1, CodeGrantUnknown}, {"open", 1, ""}}},
		{"swept when minted", begin, []step{{"minutes", 24*60 + 11, ""}, {"sweep", 0, ""}, {"redeem", 7, CodeGrantUnknown}}},
		{"swept when used", used, []step{{"minutes", 24*60 + 11, ""}, {"sweep", 0, ""}, {"redeem", 7, CodeGrantUnknown}}},
		{"kept while done is awaited", told, []step{{"minutes", 24 * 60, ""}, {"sweep", 0, ""}, {"done", 0, ""}, {"minutes", 24 * 60, ""}, {"sweep", 0, ""}, {"done", 0, "done"}, {"minutes", 1, ""}, {"sweep", 0, ""}, {"done", 0, CodeGrantUnknown}}},
	}
	s := openStore(t, t.TempDir())
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &clock{now: start}
			p := &player{g: openGrants(t, s, c), clock: c, name: fmt.Sprint("boot-", i)}
			for i, s := range append(tt.after[:len(tt.after):len(tt.after)], tt.steps...) {
				require.Equal(t, s.want, p.step(t, s.name, s.arg), "step %d: %s %d", i+1, s.name, s.arg)
			}
		})
	}
}

func TestGrantsRefuseBadInput(t *testing.T) {
	g := openGrants(t, openStore(t, t.TempDir()), &clock{now: start})
	for _, id := range []string{"", "a/b", "machine/x", "a.b", "ä"} {
		require.Error(t, g.Open(t.Context(), id, "m", "node1", [32]byte{}), id)
		require.Error(t, g.Open(t.Context(), "b", id, "node1", [32]byte{}), id)
	}
	_, err := g.Redeem(t.Context(), Token{Boot: "b"}, netip.Addr{})
	require.ErrorContains(t, err, "no address")
	_, _, err = g.Fetch(t.Context(), Token{Boot: "b"}, netip.Addr{})
	require.ErrorContains(t, err, "no address")
}

// Fetch does what Redeem and MintDone do one after the other, five times at most.
func TestFetch(t *testing.T) {
	g := openGrants(t, openStore(t, t.TempDir()), &clock{now: start})
	require.NoError(t, g.Open(t.Context(), "b", "m", "node1", [32]byte{1}))
	grant, _, err := g.Mint(t.Context(), "b", [32]byte{1})
	require.NoError(t, err)
	_, _, err = g.Fetch(t.Context(), Token{Boot: "b", Secret: NewSecret()}, testAddr(1))
	require.Equal(t, CodeGrantUnknown, code(t, err))
	var done Token
	for n := range maxFetches {
		var s Session
		s, done, err = g.Fetch(t.Context(), grant, testAddr(1))
		require.NoError(t, err)
		require.Equal(t, n+1, s.Fetches)
		require.Len(t, s.DoneHashes, n+1)
	}
	_, none, err := g.Fetch(t.Context(), grant, testAddr(1))
	require.Equal(t, CodeGrantExhausted, code(t, err))
	require.Zero(t, none)
	_, _, err = g.Fetch(t.Context(), grant, testAddr(2))
	require.Equal(t, CodeGrantOtherAddress, code(t, err))
	_, err = g.Done(t.Context(), done)
	require.NoError(t, err)
}

// A step that a mirror which lags behind would refuse, or would allow though
// another server was faster, is judged by the store.
func TestStepsOfTwoServers(t *testing.T) {
	s := openStore(t, t.TempDir())
	servers := []*Grants{openGrants(t, s, &clock{now: start}), openGrants(t, s, &clock{now: start})}
	for i := range 40 {
		boot := fmt.Sprint("boot-", i)
		require.NoError(t, servers[0].Open(t.Context(), boot, "m", "node1", [32]byte{1}))
		require.NoError(t, servers[1].Open(t.Context(), fmt.Sprint("other-", i), "m2", "node2", [32]byte{1}))
		grant, _, err := servers[0].Mint(t.Context(), boot, [32]byte{1})
		require.NoError(t, err)
		for n := range maxFetches {
			_, _, err := servers[n%2].Fetch(t.Context(), grant, testAddr(1))
			require.NoError(t, err, "boot %d, fetch %d", i, n)
		}
		_, _, err = servers[1].Fetch(t.Context(), grant, testAddr(1))
		require.Equal(t, CodeGrantExhausted, code(t, err))
	}
}

func TestMappedAddressIsTheSame(t *testing.T) {
	g := openGrants(t, openStore(t, t.TempDir()), &clock{now: start})
	require.NoError(t, g.Open(t.Context(), "b", "m", "node1", [32]byte{1}))
	grant, _, err := g.Mint(t.Context(), "b", [32]byte{1})
	require.NoError(t, err)
	_, err = g.Redeem(t.Context(), grant, netip.MustParseAddr("::ffff:192.0.2.7"))
	require.NoError(t, err)
	s, err := g.Redeem(t.Context(), grant, netip.MustParseAddr("192.0.2.7"))
	require.NoError(t, err)
	require.Equal(t, 2, s.Fetches)
}

// TestSessionGolden: what lies in the store outlives this program's version.
func TestSessionGolden(t *testing.T) {
	s := openStore(t, t.TempDir())
	g := openGrants(t, s, &clock{now: start})
	grant, done := bootOnce(t, g, "boot-1", "machine-1")
	entry, err := s.Get(t.Context(), "grants/boot-1")
	require.NoError(t, err)
	require.JSONEq(t, `{
		"boot": "boot-1", "machine": "machine-1", "name": "node1", "state": "burned", "done": true, "fetches": 1, "addr": "192.0.2.1",
		"credential": "0100000000000000000000000000000000000000000000000000000000000000",
		"opened": "2026-10-01T12:00:00Z", "minted_at": "2026-10-01T12:00:00Z", "used_at": "2026-10-01T12:00:00Z",
		"done_until": "2026-10-02T12:00:00Z", "burned_at": "2026-10-01T12:00:00Z",
		"grant": "`+grant.Secret.digest().String()+`", "done_hashes": ["`+done.Secret.digest().String()+`"]
	}`, string(entry.Value))
}

// TestT21_FirstFetchHasOneWinner lets many addresses race.
func TestT21_FirstFetchHasOneWinner(t *testing.T) {
	s := openStore(t, t.TempDir())
	c := &clock{now: start}
	servers := []*Grants{openGrants(t, s, c), openGrants(t, s, c)}
	require.NoError(t, servers[0].Open(t.Context(), "b", "m", "node1", [32]byte{1}))
	grant, _, err := servers[0].Mint(t.Context(), "b", [32]byte{1})
	require.NoError(t, err)
	require.NoError(t, servers[1].ledger.mirror.Wait(t.Context(), servers[0].ledger.mirror.Revision()))

	const racers = 8
	results := make([]string, racers)
	var all sync.WaitGroup
	for i := range racers {
		all.Go(func() {
			_, err := servers[i%2].Redeem(t.Context(), grant, testAddr(byte(i)))
			results[i] = code(t, err)
		})
	}
	all.Wait()
	var won int
	for _, result := range results {
		if result == "" {
			won++
		} else {
			require.Equal(t, CodeGrantOtherAddress, result)
		}
	}
	require.Equal(t, 1, won)
}

// TestOpenRacesWithItself: of a machine's boots one is alive.
func TestOpenRacesWithItself(t *testing.T) {
	s, c := openStore(t, t.TempDir()), &clock{now: start}
	servers := []*Grants{openGrants(t, s, c), openGrants(t, s, c)}
	var all sync.WaitGroup
	const boots = 40
	results := make([]error, boots)
	for i := range boots {
		all.Go(func() { results[i] = servers[i%2].Open(t.Context(), fmt.Sprint(i), "m", "node1", [32]byte{1}) })
	}
	all.Wait()
	require.NoError(t, errors.Join(results...))
	require.NoError(t, servers[0].ledger.mirror.Wait(t.Context(), servers[1].ledger.mirror.Revision()))
	var alive int
	for i := range boots {
		if _, _, err := servers[0].Mint(t.Context(), fmt.Sprint(i), [32]byte{1}); code(t, err) == "" {
			alive++
		}
	}
	require.Equal(t, 1, alive)
}

func TestSweepLeavesNothing(t *testing.T) {
	s := openStore(t, t.TempDir())
	c := &clock{now: start}
	g := openGrants(t, s, c)
	bootOnce(t, g, "b1", "m")
	bootOnce(t, g, "b2", "m")
	require.NoError(t, g.Open(t.Context(), "b3", "m2", "node1", [32]byte{1}))
	c.Add(25*time.Hour + time.Minute)
	require.NoError(t, g.Sweep(t.Context()))
	entries, err := s.List(t.Context(), "grants/")
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestOpeningABootAgainDoesNoHarm(t *testing.T) {
	for _, reserve := range []int64{0, 1 << 60} { // in the store, in memory
		s, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Reserve: reserve})
		require.NoError(t, err)
		g, err := OpenGrants(t.Context(), s, nil, nil)
		require.NoError(t, err)
		credential := [32]byte{1}
		require.NoError(t, g.Open(t.Context(), "b1", "m1", "node1", credential))
		require.NoError(t, g.Open(t.Context(), "b1", "m1", "node1", credential), "the answer to the first may have been lost")
		require.Error(t, g.Open(t.Context(), "b1", "m2", "node1", credential))
		require.Error(t, g.Open(t.Context(), "b1", "m1", "node1", [32]byte{2}))
		_, _, err = g.Mint(t.Context(), "b1", credential)
		require.NoError(t, err)
		require.Error(t, g.Open(t.Context(), "b1", "m1", "node1", credential), "a boot that was minted for is not begun anew")
		require.NoError(t, s.Close())
	}
}
