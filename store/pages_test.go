package store

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestPagesLikeAMap does random changes to pages and to a map and compares
// them, an older version included: it must never change.
func TestPagesLikeAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		model := map[string]Entry{}
		var p, old pages
		var d *draft
		together := rapid.IntRange(1, 50).Draw(t, "together")
		var oldEntries []Entry
		steps := rapid.IntRange(0, 2000).Draw(t, "steps")
		keys := rapid.IntRange(1, 1500).Draw(t, "keys")
		saveAt := rapid.IntRange(0, 2000).Draw(t, "saveAt")
		for i := range steps {
			if i == saveAt {
				old, oldEntries = p, sorted(model, "")
			}
			if i%together == 0 { // the changes until the next of these go into one draft
				d = p.draft()
			}
			// A cheap spread over the keys; drawing each is too slow.
			key := fmt.Sprintf("k%04d", i*7919%keys)
			if i%3 == 2 {
				delete(model, key)
				d.remove(key)
			} else {
				e := Entry{Key: key, Revision: int64(i)}
				model[key] = e
				d.set(e)
			}
			p = slices.Clone(d.pages)
		}
		checkPages(t, p)
		require.Equal(t, sorted(model, ""), p.list(""))
		require.Equal(t, sorted(model, "k00"), p.list("k00"))
		require.Equal(t, oldEntries, old.list(""))
		require.Equal(t, p.list(""), newPages(p.list("")).list(""))
		probe := fmt.Sprintf("k%04d", rapid.IntRange(0, 1600).Draw(t, "probe"))
		want, exists := model[probe]
		got, found := p.get(probe)
		require.Equal(t, exists, found)
		require.Equal(t, want, got)
	})
}

func sorted(model map[string]Entry, prefix string) (entries []Entry) {
	for _, key := range slices.Sorted(maps.Keys(model)) {
		if strings.HasPrefix(key, prefix) {
			entries = append(entries, model[key])
		}
	}
	return entries
}

func checkPages(t require.TestingT, p pages) {
	for _, entries := range p {
		require.NotEmpty(t, entries)
		require.LessOrEqual(t, len(entries), pageSize)
	}
}

func TestPagesEmpty(t *testing.T) {
	var p pages
	_, ok := p.get("a")
	require.False(t, ok)
	require.Empty(t, p.list(""))
	d := p.draft()
	d.remove("a")
	require.Empty(t, d.pages)
	d.set(Entry{Key: "a"})
	d.remove("a")
	require.Empty(t, d.pages)
}
