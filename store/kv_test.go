package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestConformance is what the rest of nestboot relies on. All cases run on one
// store, each below keys of its own.
func TestConformance(t *testing.T) {
	s := open(t, inDir(t))
	for name, test := range map[string]func(t *testing.T, s *Store, k string){
		"get what is not there":        getMissing,
		"put and get":                  putAndGet,
		"empty value exists":           emptyValue,
		"list is sorted and bounded":   listSorted,
		"delete":                       deleteKey,
		"recreate":                     recreate,
		"commit all":                   commitAll,
		"commit nothing on conflict":   commitConflict,
		"commit creates once":          commitCreate,
		"commit without operations":    commitEmpty,
		"commit many":                  commitMany,
		"commit the same key twice":    commitTwice,
		"set copies the value":         setCopies,
		"update makes, changes, drops": updateKey,
		"update keeps on error":        updateError,
		"bad keys":                     badKeys,
	} {
		t.Run(name, func(t *testing.T) { test(t, s, t.Name()+"/") })
	}
}

func getMissing(t *testing.T, s *Store, k string) {
	_, err := s.Get(t.Context(), k)
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorContains(t, err, k)
}

func putAndGet(t *testing.T, s *Store, k string) {
	first := put(t, s, k, "1")
	second := put(t, s, k, "2")
	require.Equal(t, first+1, second)
	e, err := s.Get(t.Context(), k)
	require.NoError(t, err)
	require.Equal(t, Entry{Key: k, Value: []byte("2"), Revision: second, Created: first}, e)
}

func emptyValue(t *testing.T, s *Store, k string) {
	put(t, s, k, "")
	e, err := s.Get(t.Context(), k)
	require.NoError(t, err)
	require.Empty(t, e.Value)
	_, err = s.Update(t.Context(), k, func(old []byte) ([]byte, error) {
		require.NotNil(t, old, "nil would mean that the key does not exist")
		return old, nil
	})
	require.NoError(t, err)
	_, err = s.Get(t.Context(), k)
	require.NoError(t, err, "an empty result is a value, only nil removes")
}

func listSorted(t *testing.T, s *Store, k string) {
	for _, n := range []string{"b", "a", "c/x", "c"} {
		put(t, s, k+n, n)
	}
	var got []string
	entries, err := s.List(t.Context(), k)
	require.NoError(t, err)
	for _, e := range entries {
		got = append(got, string(e.Value))
	}
	require.Equal(t, []string{"a", "b", "c", "c/x"}, got)
	entries, err = s.List(t.Context(), k+"c")
	require.NoError(t, err)
	require.Len(t, entries, 2)
	entries, err = s.List(t.Context(), k+"nothing")
	require.NoError(t, err)
	require.Empty(t, entries)
	all, err := s.List(t.Context(), "")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(all), 4)
}

func deleteKey(t *testing.T, s *Store, k string) {
	written := put(t, s, k, "1")
	revision, err := s.Delete(t.Context(), k)
	require.NoError(t, err)
	require.Equal(t, written+1, revision)
	_, err = s.Get(t.Context(), k)
	require.ErrorIs(t, err, ErrNotFound)
	_, err = s.Delete(t.Context(), k)
	require.ErrorIs(t, err, ErrNotFound)
}

func recreate(t *testing.T, s *Store, k string) {
	put(t, s, k, "1")
	_, err := s.Delete(t.Context(), k)
	require.NoError(t, err)
	revision := put(t, s, k, "2")
	e, err := s.Get(t.Context(), k)
	require.NoError(t, err)
	require.Equal(t, revision, e.Created)
}

func commitAll(t *testing.T, s *Store, k string) {
	a, b := put(t, s, k+"a", "1"), put(t, s, k+"b", "1")
	revision, err := s.Commit(t.Context(), Txn{
		If:   []Condition{Unchanged(k+"a", a), Unchanged(k+"b", b), Unchanged(k+"c", 0)},
		Then: []Op{Set(k+"a", []byte("2")), Remove(k + "b"), Set(k+"c", []byte("2"))},
	})
	require.NoError(t, err)
	entries, err := s.List(t.Context(), k)
	require.NoError(t, err)
	require.Equal(t, []Entry{
		{Key: k + "a", Value: []byte("2"), Revision: revision, Created: a},
		{Key: k + "c", Value: []byte("2"), Revision: revision, Created: revision},
	}, entries)
}

func commitConflict(t *testing.T, s *Store, k string) {
	old := put(t, s, k+"a", "1")
	put(t, s, k+"a", "2")
	_, err := s.Commit(t.Context(), Txn{
		If:   []Condition{Unchanged(k+"a", old)},
		Then: []Op{Set(k+"b", nil), Remove(k + "a")},
	})
	require.ErrorIs(t, err, ErrConflict)
	entries, err := s.List(t.Context(), k)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.Equal(t, "2", string(entries[0].Value))
}

func commitCreate(t *testing.T, s *Store, k string) {
	create := Txn{If: []Condition{Unchanged(k, 0)}, Then: []Op{Set(k, nil)}}
	_, err := s.Commit(t.Context(), create)
	require.NoError(t, err)
	_, err = s.Commit(t.Context(), create)
	require.ErrorIs(t, err, ErrConflict)
}

func commitEmpty(t *testing.T, s *Store, k string) {
	revision := put(t, s, k, "1")
	got, err := s.Commit(t.Context(), Txn{If: []Condition{Unchanged(k, revision)}})
	require.NoError(t, err)
	require.Equal(t, revision, got, "a question does not make a revision")
}

func commitMany(t *testing.T, s *Store, k string) {
	var txn Txn
	for i := range maxTxnOps {
		txn.If = append(txn.If, Unchanged(k+strconv.Itoa(i), 0))
		txn.Then = append(txn.Then, Set(k+strconv.Itoa(i), nil))
	}
	_, err := s.Commit(t.Context(), txn)
	require.NoError(t, err)
	txn.Then = append(txn.Then, Set(k, nil))
	_, err = s.Commit(t.Context(), txn)
	require.ErrorContains(t, err, "too many operations")
}

func commitTwice(t *testing.T, s *Store, k string) {
	_, err := s.Commit(t.Context(), Txn{Then: []Op{Set(k, nil), Set(k, nil)}})
	require.ErrorContains(t, err, "duplicate key")
}

func setCopies(t *testing.T, s *Store, k string) {
	value := []byte("1")
	op := Set(k, value)
	value[0] = 'x'
	_, err := s.Commit(t.Context(), Txn{Then: []Op{op}})
	require.NoError(t, err)
	e, err := s.Get(t.Context(), k)
	require.NoError(t, err)
	require.Equal(t, "1", string(e.Value))
}

func updateKey(t *testing.T, s *Store, k string) {
	for _, step := range []struct{ old, next []byte }{
		{nil, []byte("1")},
		{[]byte("1"), []byte("2")},
		{[]byte("2"), nil},
		{nil, nil},
	} {
		_, err := s.Update(t.Context(), k, func(old []byte) ([]byte, error) {
			require.Equal(t, step.old, old)
			return step.next, nil
		})
		require.NoError(t, err)
	}
	_, err := s.Get(t.Context(), k)
	require.ErrorIs(t, err, ErrNotFound)
}

func updateError(t *testing.T, s *Store, k string) {
	put(t, s, k, "1")
	stop := errors.New("stop")
	_, err := s.Update(t.Context(), k, func(old []byte) ([]byte, error) {
		old[0] = 'x' // a careless caller changes nothing but its copy
		return nil, stop
	})
	require.ErrorIs(t, err, stop)
	e, err := s.Get(t.Context(), k)
	require.NoError(t, err)
	require.Equal(t, "1", string(e.Value))
}

func badKeys(t *testing.T, s *Store, k string) {
	_, err := s.Put(t.Context(), "", nil)
	require.ErrorContains(t, err, "key is not provided")
	_, err = s.Put(t.Context(), k, bytes.Repeat([]byte("x"), 2<<20))
	require.ErrorContains(t, err, "too large")
}

// TestConcurrentUpdates counts to a number that a single lost update spoils.
func TestConcurrentUpdates(t *testing.T) {
	s := open(t, inDir(t))
	const writers, each = 8, 25
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				if _, err := s.Update(context.Background(), "n", increment); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	e, err := s.Get(t.Context(), "n")
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(writers*each), string(e.Value))
}

func increment(old []byte) ([]byte, error) {
	n := 0
	if old != nil {
		var err error
		if n, err = strconv.Atoi(string(old)); err != nil {
			return nil, err
		}
	}
	return []byte(strconv.Itoa(n + 1)), nil
}

func TestUpdateGivesUp(t *testing.T) {
	s := open(t, inDir(t))
	tries := 0
	_, err := s.Update(t.Context(), "a", func([]byte) ([]byte, error) {
		tries++
		put(t, s, "a", "other")
		return []byte("mine"), nil
	})
	require.ErrorIs(t, err, ErrConflict)
	require.Equal(t, updateTries, tries)
}

// TestQuotaAlarmEndsWithRestart uses etcd's own alarm: filling 2 GiB takes long.
func TestQuotaAlarmEndsWithRestart(t *testing.T) {
	cfg := inDir(t)
	s := open(t, cfg)
	put(t, s, "a", "1")
	_, err := s.engine.etcd.Server.Alarm(t.Context(), &etcdserverpb.AlarmRequest{
		MemberID: uint64(s.engine.etcd.Server.MemberID()),
		Action:   etcdserverpb.AlarmRequest_ACTIVATE,
		Alarm:    etcdserverpb.AlarmType_NOSPACE,
	})
	require.NoError(t, err)
	_, err = s.Put(t.Context(), "a", []byte("2"))
	require.ErrorIs(t, err, ErrNoSpace)
	require.ErrorContains(t, err, "quota")
	_, err = s.Get(t.Context(), "a")
	require.NoError(t, err)
	_, err = s.Delete(t.Context(), "a")
	require.NoError(t, err, "removing keys is the way out")
	require.NoError(t, s.Close())
	put(t, open(t, cfg), "a", "3")
}
