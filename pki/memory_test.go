package pki

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nestboot/nestboot/store"
	"github.com/stretchr/testify/require"
)

// revive puts g on a store that works again.
func revive(t *testing.T, g *Grants, s *store.Store) {
	t.Helper()
	mirror, err := s.Mirror(t.Context(), grantsPrefix)
	require.NoError(t, err)
	g.ledger.store, g.ledger.mirror = s, mirror
}

func TestBootsGoOnWithoutSpace(t *testing.T) {
	s := openStoreWith(t, store.Config{Dir: t.TempDir(), Reserve: 1 << 60})
	_, err := s.Put(t.Context(), "k", nil)
	require.ErrorIs(t, err, store.ErrNoSpace)
	book, c := newLogbook(), &clock{now: start}
	g, err := OpenGrants(t.Context(), s, book.logger(), c.Now)
	require.NoError(t, err)

	grant, done := bootOnce(t, g, "b1", "m")
	require.Error(t, g.Open(t.Context(), "b1", "m", "node1", [32]byte{1}), "a boot id is used once")
	_, err = g.Redeem(t.Context(), grant, testAddr(1))
	require.Equal(t, CodeGrantBurned, code(t, err))
	_, err = g.Done(t.Context(), done)
	require.ErrorIs(t, err, ErrAlreadyDone)
	_, _, err = g.Mint(t.Context(), "unknown", [32]byte{1})
	require.Equal(t, CodeGrantUnknown, code(t, err))
	require.NoError(t, g.Sweep(t.Context()))
	require.Equal(t, 1, strings.Count(book.String(), "a restart will forget them"))

	c.Add(time.Minute)
	bootOnce(t, g, "b2", "m")
	require.Equal(t, 2, strings.Count(book.String(), "a restart will forget them"), "once a minute")

	c.Add(retention + time.Minute)
	require.NoError(t, g.Sweep(t.Context()))
	require.Empty(t, g.ledger.memory)
}

// TestStoreDiesInMidBoot kills the store after each step: the boot goes on,
// and is handed to the store once there is one.
func TestStoreDiesInMidBoot(t *testing.T) {
	steps := []step{{"open", 1, ""}, {"mint", 1, ""}, {"redeem", 7, ""}, {"mintdone", 0, ""}, {"done", 0, ""}}
	for n := range steps {
		t.Run(fmt.Sprintf("after %d steps", n), func(t *testing.T) {
			dir := t.TempDir()
			s, c := openStore(t, dir), &clock{now: start}
			p := &player{g: openGrants(t, s, c), clock: c, name: "b"}
			for i, step := range steps {
				if i == n {
					require.NoError(t, s.Close())
				}
				require.Equal(t, step.want, p.step(t, step.name, step.arg), step.name)
			}
			require.Equal(t, CodeGrantBurned, p.step(t, "redeem", 7))

			s = openStore(t, dir)
			revive(t, p.g, s)
			c.Add(time.Minute)
			require.NoError(t, p.g.Sweep(t.Context()))
			require.Empty(t, p.g.ledger.memory)
			p.g = openGrants(t, s, c)
			require.Equal(t, CodeGrantBurned, p.step(t, "redeem", 7))
			require.Equal(t, "done", p.step(t, "done", 0))
		})
	}
}

// TestRebootInMemory burns a boot that lies in the store by one that doesn't,
// and the other way round.
func TestRebootInMemory(t *testing.T) {
	dir := t.TempDir()
	s, c := openStore(t, dir), &clock{now: start}
	p := &player{g: openGrants(t, s, c), clock: c, name: "b"}
	require.Empty(t, p.step(t, "open", 1))
	require.Empty(t, p.step(t, "mint", 1))
	require.NoError(t, s.Close())
	require.Empty(t, p.step(t, "reboot", 1))
	require.Equal(t, CodeGrantBurned, p.step(t, "redeem", 7))

	revive(t, p.g, openStore(t, dir))
	c.Add(time.Minute)
	require.NoError(t, p.g.Open(t.Context(), "b-3", "b", "node1", [32]byte{1}))
	require.Empty(t, p.g.ledger.memory)
	for boot, want := range map[string]string{"b": CodeGrantBurned, "b-2": CodeGrantBurned, "b-3": ""} {
		_, _, err := p.g.Mint(t.Context(), boot, [32]byte{1})
		require.Equal(t, want, code(t, err), boot)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	c := &clock{now: start}
	g := openGrants(t, openStore(t, t.TempDir()), c)
	for i := range maxInMemory + 10 {
		boot := fmt.Sprint(i)
		g.ledger.remember(Session{Boot: boot, Opened: c.Now()})
		c.Add(time.Second)
	}
	require.Len(t, g.ledger.memory, maxInMemory)
	require.NotContains(t, g.ledger.memory, "9")
	require.Contains(t, g.ledger.memory, "10")
}

// TestT22_MemoryTakesOverDuringOpen is a machine that boots again while a step
// of its former boot hangs in the store until memory takes that boot over.
func TestT22_MemoryTakesOverDuringOpen(t *testing.T) {
	c := &clock{now: start}
	g := openGrants(t, openStore(t, t.TempDir()), c)
	require.NoError(t, g.Open(t.Context(), "b", "m", "node1", [32]byte{1}))
	grant, _, err := g.Mint(t.Context(), "b", [32]byte{1})
	require.NoError(t, err)
	_, err = g.ledger.changeInMemory("b", func(*Session) error { return nil })
	require.NoError(t, err)

	second := Session{Boot: "b-2", Machine: "m", State: Opened, Opened: c.Now()}
	require.ErrorIs(t, g.ledger.openStored(t.Context(), second), errInMemory)
	require.NoError(t, g.ledger.openInMemory(second))
	_, err = g.Redeem(t.Context(), grant, testAddr(1))
	require.Equal(t, CodeGrantBurned, code(t, err))
}

// TestT22_FlushRevivesNothing has a boot in memory that looks alive, while the
// store knows of the machine's next one.
func TestT22_FlushRevivesNothing(t *testing.T) {
	for name, known := range map[string]bool{"burned in the store": true, "never stored": false} {
		t.Run(name, func(t *testing.T) {
			c := &clock{now: start}
			g := openGrants(t, openStore(t, t.TempDir()), c)
			former := Session{Boot: "b", Machine: "m", State: Used, Opened: c.Now()}
			if known {
				require.NoError(t, g.Open(t.Context(), "b", "m", "node1", [32]byte{1}))
			}
			c.Add(time.Minute)
			require.NoError(t, g.Open(t.Context(), "b-2", "m", "node1", [32]byte{1}))
			g.ledger.memory["b"] = former

			require.NoError(t, g.Sweep(t.Context()))
			require.Empty(t, g.ledger.memory)
			s, ok := g.ledger.find("b")
			require.True(t, ok)
			require.Equal(t, Burned, s.State)
			pointer, ok := g.ledger.mirror.Get(machinePrefix + "m")
			require.True(t, ok)
			require.Equal(t, "b-2", string(pointer.Value))
			_, _, err := g.Mint(t.Context(), "b-2", [32]byte{1})
			require.NoError(t, err)
		})
	}
}
