package pki

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nestboot/nestboot/store"
)

const stateRevoked = "revoked"

// revokeBatch certificates are marked in one transaction: each takes a
// condition and an operation of the store's 1024.
const revokeBatch = 500

// RevokeSet makes every certificate that was issued for the set useless and
// returns their serial numbers. When it returns without an error, Verify
// refuses each of them with CodeRevoked, on connections that are open already
// too. Certificates that were revoked before are left alone, so the same call
// again does no harm. A certificate that is issued for the set afterwards is
// good.
//
// It may use the store's reserve of space. When it fails, Verify refuses the
// certificates all the same, but a restart forgets that: call it again until
// it succeeds.
func (a *Authority) RevokeSet(ctx context.Context, set string) (serials []string, err error) {
	if serials, err = a.records.revoke(ctx, set); err != nil {
		return serials, fmt.Errorf("revoke certificates of set %s: %w", set, err)
	}
	if len(serials) == 0 {
		return nil, nil
	}
	a.log.InfoContext(ctx, "certificates of a set revoked", "stage", "pki", "set", set, "serials", serials)
	return serials, nil
}

// revoke condemns what the mirror has, for the store may not answer, and then
// what the store has: a certificate that was issued a moment ago counts too.
func (r *records) revoke(ctx context.Context, set string) (serials []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	r.condemn(r.mirror.List(certPrefix), set)
	entries, err := r.store.List(ctx, certPrefix)
	if err != nil {
		return nil, err
	}
	r.condemn(entries, set)
	defer func() {
		if err == nil {
			r.written(serials)
		}
	}()
	txn := store.Txn{Urgent: true}
	for _, e := range entries {
		op, found := revocation(e, set)
		if !found {
			continue
		}
		serials = append(serials, e.Key[len(certPrefix):])
		txn.If, txn.Then = append(txn.If, store.Unchanged(e.Key, e.Revision)), append(txn.Then, op)
		if len(txn.Then) == revokeBatch {
			if err := r.commit(ctx, txn); err != nil {
				return serials, err
			}
			txn = store.Txn{Urgent: true}
		}
	}
	if len(txn.Then) == 0 {
		return serials, nil
	}
	return serials, r.commit(ctx, txn)
}

// condemn makes find call the active certificates of the set revoked, before
// that is written down.
func (r *records) condemn(entries []store.Entry, set string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		if _, found := revocation(e, set); found {
			r.condemned[e.Key] = true
		}
	}
}

// written forgets what the store and the mirror have by now.
func (r *records) written(serials []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, serial := range serials {
		delete(r.condemned, certPrefix+serial)
	}
}

// revocation is the operation that revokes the certificate of a record, if it
// is an active one of the set. A damaged record lets no certificate pass.
func revocation(e store.Entry, set string) (store.Op, bool) {
	var rec record
	if err := json.Unmarshal(e.Value, &rec); err != nil || rec.Set != set || rec.State != stateActive {
		return store.Op{}, false
	}
	rec.State = stateRevoked
	value, err := json.Marshal(rec)
	if err != nil { // it has just been decoded
		return store.Op{}, false
	}
	return store.Set(e.Key, value), true
}

// commit does txn and waits until find sees it.
func (r *records) commit(ctx context.Context, txn store.Txn) error {
	revision, err := r.store.Commit(ctx, txn)
	if err != nil {
		return err
	}
	return r.mirror.Wait(ctx, revision)
}
