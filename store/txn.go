package store

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// maxTxnOps bounds the conditions and the operations of a transaction.
const maxTxnOps = 1024

// Txn is a change of several keys at once: when every condition of If holds,
// all of Then is done in one revision. Up to 1024 of each, 1.5 MB together, and
// no key twice in Then.
type Txn struct {
	If   []Condition
	Then []Op
	// Urgent is for few and small writes that must not wait for somebody to
	// make room, such as revocations: they may use three quarters of the
	// reserve.
	Urgent bool
}

// Condition is what a transaction requires. See Unchanged.
type Condition struct{ cmp clientv3.Cmp }

// Op is one step of a transaction. See Set and Remove.
type Op struct{ op clientv3.Op }

// Unchanged holds while key is as it was at the revision that its Entry names;
// revision 0 means that the key must not exist.
func Unchanged(key string, revision int64) Condition {
	return Condition{clientv3.Compare(clientv3.ModRevision(key), "=", revision)}
}

// Set makes value, which is copied, the value of key.
func Set(key string, value []byte) Op {
	return Op{clientv3.OpPut(key, string(value))}
}

// Remove removes key; it is no error when the key does not exist.
func Remove(key string) Op {
	return Op{clientv3.OpDelete(key)}
}

// Commit does txn and returns its revision, which is on disk. It fails with
// ErrConflict, and changes nothing, when a condition does not hold. What is
// committed at the same time may share a revision.
func (s *Store) Commit(ctx context.Context, txn Txn) (int64, error) {
	if err := s.space.check(txn.Urgent); err != nil {
		return 0, err
	}
	revision, err := s.group.commit(ctx, s, txn)
	if err != nil && !errors.Is(err, ErrConflict) {
		err = fmt.Errorf("commit: %w", err)
	}
	return revision, err
}

// commitNow does one transaction of etcd's.
func (s *Store) commitNow(ctx context.Context, txn Txn) (int64, error) {
	conditions := make([]clientv3.Cmp, len(txn.If))
	for i, c := range txn.If {
		conditions[i] = c.cmp
	}
	ops := make([]clientv3.Op, len(txn.Then))
	for i, o := range txn.Then {
		ops[i] = o.op
	}
	resp, err := call(ctx, s, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return s.engine.client.Txn(ctx).If(conditions...).Then(ops...).Commit()
	})
	if err != nil {
		return 0, err
	}
	if !resp.Succeeded {
		return 0, ErrConflict
	}
	return resp.Header.Revision, nil
}
