package store

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestWatchFromNow(t *testing.T) {
	s := open(t, inDir(t))
	put(t, s, "w/a", "before")
	changes, err := s.Watch(t.Context(), "w/", 0)
	require.NoError(t, err)

	put(t, s, "other", "")
	created := put(t, s, "w/a", "2")
	removed, err := s.Delete(t.Context(), "w/a")
	require.NoError(t, err)

	c := <-changes
	require.Equal(t, "2", string(c.Value))
	require.Equal(t, created, c.Revision)
	require.Equal(t, Change{Entry: Entry{Key: "w/a", Revision: removed}, Deleted: true}, <-changes)
}

func TestWatchFromThePast(t *testing.T) {
	s := open(t, inDir(t))
	first := put(t, s, "a", "0")
	for i := range 5 {
		put(t, s, "a", fmt.Sprint(i+1))
	}
	changes, err := s.Watch(t.Context(), "a", first)
	require.NoError(t, err)
	for i := range 6 {
		require.Equal(t, fmt.Sprint(i), string((<-changes).Value))
	}
}

func TestWatchFromTheFuture(t *testing.T) {
	s := open(t, inDir(t))
	next := put(t, s, "a", "1") + 2
	changes, err := s.Watch(t.Context(), "a", next)
	require.NoError(t, err)
	put(t, s, "a", "2")
	put(t, s, "a", "3")
	require.Equal(t, "3", string((<-changes).Value))
}

func TestWatchCompacted(t *testing.T) {
	s := open(t, inDir(t))
	first := put(t, s, "a", "1")
	last := put(t, s, "a", "2")
	compact(t, s, last)
	_, err := s.Watch(t.Context(), "a", first)
	require.ErrorIs(t, err, ErrCompacted)
	changes, err := s.Watch(t.Context(), "a", last)
	require.NoError(t, err)
	require.Equal(t, "2", string((<-changes).Value))
}

func compact(t *testing.T, s *Store, revision int64) {
	t.Helper()
	_, err := s.engine.client.Compact(t.Context(), revision, clientv3.WithCompactPhysical())
	require.NoError(t, err)
}

func TestWatchEndsWithContext(t *testing.T) {
	s := open(t, inDir(t))
	ctx, cancel := context.WithCancel(t.Context())
	changes, err := s.Watch(ctx, "", 0)
	require.NoError(t, err)
	put(t, s, "a", "nobody reads this")
	cancel()
	for range changes {
	}
}
