package store

import (
	"context"
	"errors"
	"slices"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Bounds of what is committed together, well below etcd's (1024 operations,
// 1.5 MiB).
const (
	groupOps   = 512
	groupBytes = 512 << 10
)

// group commits together what many ask for at the same time: for etcd the cost
// of a transaction is far above that of the keys in it. While one commit is
// under way, the others gather. Its zero value is ready.
type group struct {
	mu      sync.Mutex
	running bool
	waiting []*waiting
}

// waiting is a transaction that waits for its turn.
type waiting struct {
	ctx      context.Context
	txn      Txn
	revision int64
	err      error
	done     chan struct{}
}

// commit returns what became of txn, or when ctx ends: then it may still be
// done, or not.
func (g *group) commit(ctx context.Context, s *Store, txn Txn) (int64, error) {
	if !s.begin() {
		return 0, s.life.reason()
	}
	w := &waiting{ctx: ctx, txn: txn, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, w)
	idle := !g.running
	g.running = true
	g.mu.Unlock()
	if idle {
		go func() {
			defer s.tasks.Done()
			g.run(s)
		}()
	} else {
		s.tasks.Done()
	}
	select {
	case <-w.done:
		return w.revision, w.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// run commits until nobody waits.
func (g *group) run(s *Store) {
	for {
		batches := g.take()
		if len(batches) == 0 {
			return
		}
		var running sync.WaitGroup
		for _, batch := range batches {
			running.Go(func() { s.commitAll(batch) })
		}
		running.Wait()
	}
}

// take returns all that wait, in as few batches as may be: in one batch nobody
// writes what another one reads or writes. Those whose caller has gone are
// dropped. When there is none, run ends.
func (g *group) take() [][]*waiting {
	g.mu.Lock()
	defer g.mu.Unlock()
	var batches [][]*waiting
	var m merged // the first batch; what does not fit is on its own
	for _, w := range g.waiting {
		switch {
		case w.ctx.Err() != nil:
		case len(batches) == 0:
			m.add(w.txn)
			batches = append(batches, []*waiting{w})
		case m.add(w.txn):
			batches[0] = append(batches[0], w)
		default:
			batches = append(batches, []*waiting{w})
		}
	}
	g.waiting = nil
	g.running = len(batches) > 0
	return batches
}

// commitAll commits a batch as one transaction, or each on its own when it was
// refused: that is the fault of one of them and not of the others.
func (s *Store) commitAll(batch []*waiting) {
	if len(batch) > 1 {
		var all Txn
		for _, w := range batch {
			all.If, all.Then = append(all.If, w.txn.If...), append(all.Then, w.txn.Then...)
		}
		// One of them leaving must not break off the others; etcd has a time limit.
		revision, err := s.commitNow(context.WithoutCancel(batch[0].ctx), all)
		if err == nil || !refused(err) {
			for _, w := range batch {
				w.end(revision, err)
			}
			return
		}
	}
	var running sync.WaitGroup
	for _, w := range batch {
		running.Go(func() { w.end(s.commitNow(w.ctx, w.txn)) })
	}
	running.Wait()
}

// refused reports whether err says that nothing was done, and not that the store
// is gone or too slow to tell.
func refused(err error) bool {
	return !slices.ContainsFunc([]error{
		ErrUnavailable, context.DeadlineExceeded, context.Canceled,
		rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTimeoutDueToConnectionLost,
	}, func(gone error) bool { return errors.Is(err, gone) })
}

// end tells the caller.
func (w *waiting) end(revision int64, err error) {
	w.revision, w.err = revision, err
	close(w.done)
}

// merged is what a batch reads and writes so far.
type merged struct {
	reads, writes map[string]bool
	ops, bytes    int
	removal       bool // all of them only remove
}

// add takes a transaction in unless it must be one of its own. The first always
// is taken.
func (m *merged) add(txn Txn) bool {
	bytes := 0
	for _, o := range txn.Then {
		bytes += len(o.op.KeyBytes()) + len(o.op.ValueBytes())
	}
	ops, removal := max(len(txn.If), len(txn.Then), 1), removes(txn)
	if m.ops > 0 && (m.removal != removal || m.ops+ops > groupOps || m.bytes+bytes > groupBytes || m.touches(txn)) {
		return false
	}
	if m.reads == nil {
		m.reads, m.writes = map[string]bool{}, map[string]bool{}
	}
	for _, c := range txn.If {
		m.reads[string(c.cmp.KeyBytes())] = true
	}
	for _, o := range txn.Then {
		m.writes[string(o.op.KeyBytes())] = true
	}
	m.ops, m.bytes, m.removal = m.ops+ops, m.bytes+bytes, removal
	return true
}

// removes reports whether txn makes room: etcd lets such a one pass when its
// quota is used up, unless something is set along with it.
func removes(txn Txn) bool {
	return len(txn.Then) > 0 && !slices.ContainsFunc(txn.Then, func(o Op) bool { return !o.op.IsDelete() })
}

// touches reports whether txn and the batch are in each other's way. That both
// read a key is fine; that one reads what the other writes is not, because all
// conditions are looked at before anything is written.
func (m *merged) touches(txn Txn) bool {
	for _, c := range txn.If {
		if m.writes[string(c.cmp.KeyBytes())] {
			return true
		}
	}
	for _, o := range txn.Then {
		key := string(o.op.KeyBytes())
		if m.reads[key] || m.writes[key] {
			return true
		}
	}
	return false
}
