package store

import (
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatIsCommittedTogether(t *testing.T) {
	txn := func(read, write string) Txn {
		var out Txn
		if read != "" {
			out.If = []Condition{Unchanged(read, 1)}
		}
		if write != "" {
			out.Then = []Op{Set(write, make([]byte, 100<<10))}
		}
		return out
	}
	removal := func(key string) Txn { return Txn{Then: []Op{Remove(key)}} }
	for name, c := range map[string]struct {
		txns []Txn
		want int // how many go with the first; the others alone
	}{
		"strangers":              {[]Txn{txn("a", "a"), txn("b", "b"), txn("", "c"), txn("d", "")}, 4},
		"both read":              {[]Txn{txn("a", "b"), txn("a", "c")}, 2},
		"both write":             {[]Txn{txn("", "a"), txn("", "a")}, 1},
		"reads what is written":  {[]Txn{txn("", "a"), txn("a", "b")}, 1},
		"writes what was read":   {[]Txn{txn("a", "b"), txn("", "a")}, 1},
		"large ones":             {[]Txn{txn("", "a"), txn("", "b"), txn("", "c"), txn("", "d"), txn("", "e"), txn("", "f")}, 5},
		"removals":               {[]Txn{removal("a"), removal("b"), txn("", "c")}, 2},
		"removes among setters":  {[]Txn{txn("", "a"), removal("b"), txn("", "c")}, 2},
		"removes and sets":       {[]Txn{txn("", "a"), {Then: []Op{Remove("b"), Set("c", nil)}}}, 2},
		"nothing":                {nil, 0},
		"empty ones, many times": {make([]Txn, 2*groupOps), groupOps},
	} {
		t.Run(name, func(t *testing.T) {
			g := group{running: true}
			for _, txn := range c.txns {
				g.waiting = append(g.waiting, &waiting{ctx: t.Context(), txn: txn})
			}
			batches := g.take()
			require.Empty(t, g.waiting)
			require.Equal(t, c.want > 0, g.running)
			if c.want == 0 {
				require.Empty(t, batches)
				return
			}
			require.Len(t, batches[0], c.want)
			require.Len(t, batches, 1+len(c.txns)-c.want)
		})
	}
}

// One that etcd refuses fails alone.
func TestRefusedAmongOthers(t *testing.T) {
	s := open(t, inDir(t))
	var batch []*waiting
	for _, txn := range []Txn{
		{Then: []Op{Set("a", nil)}},
		{Then: []Op{Set("twice", nil), Set("twice", nil)}},
		{Then: []Op{Set("b", nil)}},
	} {
		batch = append(batch, &waiting{ctx: t.Context(), txn: txn, done: make(chan struct{})})
	}
	s.commitAll(batch)
	require.NoError(t, batch[0].err)
	require.ErrorContains(t, batch[1].err, "duplicate key")
	require.NoError(t, batch[2].err)
	for _, key := range []string{"a", "b"} {
		_, err := s.Get(t.Context(), key)
		require.NoError(t, err, key)
	}
}

// Many writers at once, half of whom are in each other's way: each gets what it
// would get alone, a conflict does not spread, and nothing is lost.
func TestCommitsTogether(t *testing.T) {
	s := open(t, inDir(t))
	const writers, counters, rounds = 32, 4, 20
	taken, err := s.Put(t.Context(), "taken", []byte("x"))
	require.NoError(t, err)
	var running sync.WaitGroup
	for n := range writers {
		running.Go(func() {
			for i := range rounds {
				own := fmt.Sprintf("own/%d/%d", n, i)
				revision, err := s.Commit(t.Context(), Txn{
					If:   []Condition{Unchanged(own, 0), Unchanged("taken", taken)},
					Then: []Op{Set(own, []byte(own))},
				})
				if err != nil {
					t.Errorf("%s: %v", own, err)
					return
				}
				if e, err := s.Get(t.Context(), own); err != nil || e.Revision != revision {
					t.Errorf("%s has revision %d, want %d: %v", own, e.Revision, revision, err)
				}
				if _, err := s.Commit(t.Context(), Txn{
					If:   []Condition{Unchanged("taken", 0)},
					Then: []Op{Set("never", []byte(own))},
				}); err == nil || err.Error() != ErrConflict.Error() {
					t.Errorf("a condition that does not hold: %v", err)
				}
				if n >= counters {
					continue
				}
				if _, err := s.Update(t.Context(), "count", func(old []byte) ([]byte, error) {
					n, _ := strconv.Atoi(string(old)) // 0 at first
					return strconv.AppendInt(nil, int64(n+1), 10), nil
				}); err != nil {
					t.Errorf("count: %v", err)
				}
			}
		})
	}
	running.Wait()
	all, err := s.List(t.Context(), "own/")
	require.NoError(t, err)
	require.Len(t, all, writers*rounds)
	count, err := s.Get(t.Context(), "count")
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(counters*rounds), string(count.Value))
	_, err = s.Get(t.Context(), "never")
	require.ErrorIs(t, err, ErrNotFound)
}
