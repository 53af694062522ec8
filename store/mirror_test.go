package store

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func mirror(t *testing.T, s *Store, prefix string) *Mirror {
	t.Helper()
	m, err := s.Mirror(t.Context(), prefix)
	require.NoError(t, err)
	return m
}

func TestMirrorFollows(t *testing.T) {
	s := open(t, inDir(t))
	put(t, s, "m/loaded", "1")
	put(t, s, "other", "1")
	m := mirror(t, s, "m/")
	e, ok := m.Get("m/loaded")
	require.True(t, ok)
	want, err := s.Get(t.Context(), "m/loaded")
	require.NoError(t, err)
	require.Equal(t, want, e)
	_, ok = m.Get("other")
	require.False(t, ok)

	put(t, s, "m/new", "2")
	_, err = s.Delete(t.Context(), "m/loaded")
	require.NoError(t, err)
	last, err := s.Update(t.Context(), "m/new", increment)
	require.NoError(t, err)
	require.NoError(t, m.Wait(t.Context(), last))
	require.Equal(t, last, m.Revision())
	fromStore, err := s.List(t.Context(), "m/")
	require.NoError(t, err)
	require.Equal(t, fromStore, m.List("m/"))
	require.Equal(t, fromStore, m.List(""))
	require.Equal(t, "3", string(fromStore[0].Value))
}

func TestMirrorWaitsForRevisionsOfOthers(t *testing.T) {
	s := open(t, inDir(t))
	m := mirror(t, s, "m/")
	changed := m.Changed()
	require.NoError(t, m.Wait(t.Context(), put(t, s, "other", "1")))
	select {
	case <-changed:
		t.Fatal("a key outside of the prefix is no change")
	default:
	}
	put(t, s, "m/a", "1")
	<-changed
	_, ok := m.Get("m/a")
	require.True(t, ok)
}

func TestMirrorSeesTransactionsWhole(t *testing.T) {
	s := open(t, inDir(t))
	m := mirror(t, s, "m/")
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := range 200 {
			v := fmt.Append(nil, i)
			if _, err := s.Commit(context.Background(), Txn{Then: []Op{Set("m/a", v), Set("m/b", v)}}); err != nil {
				t.Error(err)
			}
		}
	})
	for {
		changed := m.Changed()
		if all := m.List("m/"); len(all) > 0 {
			require.Len(t, all, 2)
			require.Equal(t, all[0].Value, all[1].Value)
			if string(all[0].Value) == "199" {
				break
			}
		}
		<-changed
	}
	writer.Wait()
}

func TestMirrorWaitEnds(t *testing.T) {
	s := open(t, inDir(t))
	ctx, cancel := context.WithCancel(t.Context())
	m, err := s.Mirror(ctx, "m/")
	require.NoError(t, err)

	short, cancelShort := context.WithCancel(t.Context())
	cancelShort()
	require.ErrorIs(t, m.Wait(short, 1000), context.Canceled)
	cancel()
	require.ErrorIs(t, m.Wait(t.Context(), 1000), ErrUnavailable, "a mirror whose context has ended can't advance")
}

func TestMirrorLoadsAgain(t *testing.T) {
	t.Parallel()
	s := open(t, inDir(t))
	put(t, s, "m/old", "1")
	m := mirror(t, s, "m/")
	first := m.Revision()
	_, err := s.Delete(t.Context(), "m/old")
	require.NoError(t, err)
	last := put(t, s, "m/new", "1")
	require.NoError(t, m.Wait(t.Context(), last))
	compact(t, s, last)

	// A second mirror stands where the first was before the compaction.
	late := &Mirror{prefix: "m/", stopped: make(chan struct{})}
	late.current.Store(&snapshot{revision: first, advanced: make(chan struct{}), changed: make(chan struct{})})
	ctx, cancel := context.WithCancel(t.Context())
	var kept sync.WaitGroup
	kept.Go(func() { late.keep(ctx, s) })
	require.NoError(t, late.Wait(t.Context(), last))
	require.Equal(t, m.List(""), late.List(""))
	require.NoError(t, late.Wait(t.Context(), put(t, s, "m/newer", "1")))
	cancel()
	kept.Wait()
}

func TestMirrorOfManyKeys(t *testing.T) {
	s := open(t, inDir(t))
	m := mirror(t, s, "m/")
	var last int64
	for i := range 4 {
		var txn Txn
		for j := range 500 {
			txn.Then = append(txn.Then, Set(fmt.Sprintf("m/%d/%03d", j%7, i*500+j), []byte(strings.Repeat("v", 100))))
		}
		var err error
		last, err = s.Commit(t.Context(), txn)
		require.NoError(t, err)
	}
	require.NoError(t, m.Wait(t.Context(), last))
	fromStore, err := s.List(t.Context(), "m/")
	require.NoError(t, err)
	require.Len(t, fromStore, 2000)
	require.Equal(t, fromStore, m.List(""))
	require.Equal(t, mirror(t, s, "m/").List("m/3/"), m.List("m/3/"))
}
