package store

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Change is a key that was written or, when Deleted, removed. Of a removed key
// only Key and Revision are set.
type Change struct {
	Entry
	Deleted bool
}

func newChange(ev *clientv3.Event) Change {
	return Change{Entry: newEntry(ev.Kv), Deleted: ev.Type == clientv3.EventTypeDelete}
}

// Watch sends every change of the keys that begin with prefix, in the order of
// revisions, beginning with revision from; 0 means after now. Revisions of the
// last hour are kept, older ones fail with ErrCompacted.
//
// The channel is closed when ctx ends, when the store is closed or has died,
// and when the reader was so slow that revisions were compacted before it got
// them: a reader whose context is alive lists and watches again. Changes wait in
// memory until they are read.
func (s *Store) Watch(ctx context.Context, prefix string, from int64) (<-chan Change, error) {
	from, err := s.watchStart(ctx, from)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", prefix, err)
	}
	if !s.begin() {
		return nil, fmt.Errorf("watch %s: %w", prefix, s.life.reason())
	}
	changes := make(chan Change)
	go func() {
		defer s.tasks.Done()
		defer close(changes)
		ctx, cancel := s.live(ctx)
		defer cancel()
		for resp := range s.events(ctx, prefix, from) {
			if !sendChanges(ctx, changes, resp.Events) {
				return
			}
		}
	}()
	return changes, nil
}

// watchStart resolves 0 and makes sure that from can still be watched.
func (s *Store) watchStart(ctx context.Context, from int64) (int64, error) {
	// The key can't exist; the answer is about the revision.
	resp, err := s.get(ctx, "\x00", clientv3.WithRev(from), clientv3.WithCountOnly())
	if err != nil {
		if errors.Is(err, rpctypes.ErrFutureRev) {
			return from, nil
		}
		return 0, err
	}
	if from == 0 {
		from = resp.Header.Revision + 1
	}
	return from, nil
}

func (s *Store) events(ctx context.Context, prefix string, from int64) clientv3.WatchChan {
	return s.engine.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(from))
}

func sendChanges(ctx context.Context, changes chan<- Change, events []*clientv3.Event) bool {
	for _, ev := range events {
		select {
		case changes <- newChange(ev):
		case <-ctx.Done():
			return false
		}
	}
	return true
}
