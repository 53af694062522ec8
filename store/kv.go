package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Entry is a key with its value. Value is shared with other readers and must
// not be changed.
type Entry struct {
	Key   string
	Value []byte
	// Revision is the revision of the store that last changed the key; it only
	// grows. Give it to Unchanged.
	Revision int64
	// Created is the revision of the store that made the key.
	Created int64
}

func newEntry(kv *mvccpb.KeyValue) Entry {
	return Entry{Key: string(kv.Key), Value: kv.Value, Revision: kv.ModRevision, Created: kv.CreateRevision}
}

// Get returns the entry of key as of the last acknowledged write, or
// ErrNotFound.
func (s *Store) Get(ctx context.Context, key string) (Entry, error) {
	resp, err := s.get(ctx, key)
	if err != nil {
		return Entry{}, fmt.Errorf("get %s: %w", key, err)
	}
	if len(resp.Kvs) == 0 {
		return Entry{}, fmt.Errorf("get %s: %w", key, ErrNotFound)
	}
	return newEntry(resp.Kvs[0]), nil
}

// List returns the entries whose keys begin with prefix, sorted by key, all as
// of one revision. An empty prefix lists everything.
func (s *Store) List(ctx context.Context, prefix string) ([]Entry, error) {
	entries, _, err := s.list(ctx, prefix)
	return entries, err
}

// list returns the revision of the store that the entries are from, too.
func (s *Store) list(ctx context.Context, prefix string) ([]Entry, int64, error) {
	resp, err := s.get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, 0, fmt.Errorf("list %s: %w", prefix, err)
	}
	entries := make([]Entry, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		entries[i] = newEntry(kv)
	}
	return entries, resp.Header.Revision, nil
}

func (s *Store) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return call(ctx, s, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return s.engine.client.Get(ctx, key, opts...)
	})
}

// Put sets key to value whatever it was and returns the revision of the write,
// which is on disk.
func (s *Store) Put(ctx context.Context, key string, value []byte) (int64, error) {
	revision, err := s.Commit(ctx, Txn{Then: []Op{Set(key, value)}})
	if err != nil {
		return 0, fmt.Errorf("put %s: %w", key, err)
	}
	return revision, nil
}

// Delete removes key and returns the revision of the removal, or ErrNotFound.
func (s *Store) Delete(ctx context.Context, key string) (int64, error) {
	if err := s.space.check(false); err != nil {
		return 0, fmt.Errorf("delete %s: %w", key, err)
	}
	resp, err := call(ctx, s, func(ctx context.Context) (*clientv3.DeleteResponse, error) {
		return s.engine.client.Delete(ctx, key)
	})
	if err == nil && resp.Deleted == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return 0, fmt.Errorf("delete %s: %w", key, err)
	}
	return resp.Header.Revision, nil
}

const (
	// updateTries is far beyond what a handful of writers need; each lost try
	// means that another writer got through.
	updateTries = 100
	updateWait  = time.Millisecond
)

// Update replaces the value of key by what change makes of it and returns the
// revision of the write. change gets nil when the key does not exist; it may
// return nil to have the key removed, or an error to leave it alone. It is
// called again when another writer was faster and must have no other effect.
// Update gives up with ErrConflict.
func (s *Store) Update(ctx context.Context, key string, change func(old []byte) ([]byte, error)) (int64, error) {
	for range updateTries {
		revision, err := s.tryUpdate(ctx, key, change)
		if err == nil {
			return revision, nil
		}
		if !errors.Is(err, ErrConflict) {
			return 0, fmt.Errorf("update %s: %w", key, err)
		}
		select {
		case <-time.After(rand.N(updateWait)):
		case <-ctx.Done():
			return 0, fmt.Errorf("update %s: %w", key, ctx.Err())
		}
	}
	return 0, fmt.Errorf("update %s: %w: lost %d times against other writers", key, ErrConflict, updateTries)
}

func (s *Store) tryUpdate(ctx context.Context, key string, change func([]byte) ([]byte, error)) (int64, error) {
	resp, err := s.get(ctx, key)
	if err != nil {
		return 0, err
	}
	var old []byte
	var revision int64
	if len(resp.Kvs) > 0 {
		// An empty value exists all the same.
		old = append([]byte{}, resp.Kvs[0].Value...)
		revision = resp.Kvs[0].ModRevision
	}
	value, err := change(old)
	if err != nil {
		return 0, err
	}
	op := Set(key, value)
	if value == nil {
		op = Remove(key)
	}
	return s.Commit(ctx, Txn{If: []Condition{Unchanged(key, revision)}, Then: []Op{op}})
}

// explain turns etcd's errors into ours.
func (s *Store) explain(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%w: the store has used up its quota of 2 GiB: remove keys and restart", ErrNoSpace)
	case errors.Is(err, rpctypes.ErrCompacted):
		return ErrCompacted
	case errors.Is(err, rpctypes.ErrStopped), errors.Is(err, rpctypes.ErrNoLeader):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}
