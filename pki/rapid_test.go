package pki

import (
	"flag"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestT22_ModelInMemory holds grants to the same model while the store takes no
// writes. Without a disk there is time for many sequences. The long form is:
// make models.
func TestT22_ModelInMemory(t *testing.T) {
	setRapid(t, "steps", 30)
	setRapid(t, "checks", 5_000)
	s := openStore(t, t.TempDir())
	c := &clock{now: start}
	g := openGrants(t, s, c)
	require.NoError(t, s.Close())
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		m := &model{g: g, clock: c, prefix: fmt.Sprintf("r%d", run)}
		t.Repeat(map[string]func(*rapid.T){
			"open": m.open, "mint": m.mint, "redeem": m.redeem, "mintDone": m.mintDone, "done": m.done,
			"wait": m.wait, "sweep": m.sweep,
			"mint again": m.mint, "redeem again": m.redeem, "redeem once more": m.redeem, "mintDone again": m.mintDone,
		})
		c.Add(50 * time.Hour)
		m.sweep(t)
		require.Empty(t, m.boots)
		require.Empty(t, g.ledger.memory, "all is forgotten in the end")
	})
}

// setRapid sets one of rapid's flags for this test, unless the command line
// does. With -short rapid itself divides the number of checks by 5.
func setRapid(t *testing.T, name string, value int) {
	t.Helper()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid."+name })
	if given {
		return
	}
	if name == "checks" && testing.Short() {
		value /= 5
	}
	f := flag.Lookup("rapid." + name)
	require.NotNil(t, f)
	before := f.Value.String()
	require.NoError(t, f.Value.Set(strconv.Itoa(value)))
	t.Cleanup(func() { require.NoError(t, f.Value.Set(before)) })
}
