package pki

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nestboot/nestboot/store"
)

const stateRevoked = "revoked"

// revokeBatch certificates are marked in one transaction: each takes a
// condition and an operation of the store's 1024.
const revokeBatch = 500

// ErrUnknownCertificate is returned for a serial number that no certificate has.
var ErrUnknownCertificate = errors.New("no certificate has this serial number")

// The states of an issued certificate, for operators.
const (
	StateActive  = stateActive
	StateRevoked = stateRevoked
	StateExpired = "expired"
)

// Issued is a certificate that was issued to the machines of a set.
type Issued struct {
	Serial      string    `json:"serial"`
	Set         string    `json:"set"`
	State       string    `json:"state"` // of a dropped generation: StateRevoked
	Issued      time.Time `json:"issued"`
	NotAfter    time.Time `json:"not_after"`
	Fingerprint Digest    `json:"fingerprint"` // SHA-256 of the DER form
	Generation  int       `json:"generation"`
}

// Issued returns all certificates that were ever issued to machines, the oldest
// first.
func (a *Authority) Issued() []Issued {
	all := []Issued{}
	gs := a.current.Load()
	for _, e := range a.records.mirror.List(certPrefix) {
		serial := e.Key[len(certPrefix):]
		rec, ok := a.records.find(serial)
		if !ok {
			continue
		}
		i := Issued{
			Serial: serial, Set: rec.Set, State: rec.State, Issued: rec.Issued, NotAfter: rec.NotAfter,
			Fingerprint: rec.Fingerprint, Generation: rec.generation(),
		}
		switch {
		case gs.numbered(i.Generation) == nil:
			i.State = StateRevoked
		case i.State == stateActive && a.now().After(i.NotAfter):
			i.State = StateExpired
		}
		all = append(all, i)
	}
	slices.SortStableFunc(all, func(a, b Issued) int { return a.Issued.Compare(b.Issued) })
	return all
}

// Revoke makes one certificate useless, as RevokeSet does all of a set. The
// serial number is hexadecimal, as Verify and OpenSSL have it.
func (a *Authority) Revoke(ctx context.Context, serial string) error {
	serial = strings.TrimLeft(strings.ToLower(strings.ReplaceAll(serial, ":", "")), "0")
	if _, ok := a.records.find(serial); !ok {
		return ErrUnknownCertificate
	}
	serials, err := a.records.revoke(ctx, func(key string, _ record) bool { return key == certPrefix+serial })
	if err != nil {
		return fmt.Errorf("revoke certificate %s: %w", serial, err)
	}
	if len(serials) > 0 {
		a.log.InfoContext(ctx, "certificate revoked", "stage", "pki", "serial", serial)
	}
	return nil
}

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
	if serials, err = a.records.revoke(ctx, func(_ string, rec record) bool { return rec.Set == set }); err != nil {
		return serials, fmt.Errorf("revoke certificates of set %s: %w", set, err)
	}
	if len(serials) == 0 {
		return nil, nil
	}
	a.log.InfoContext(ctx, "certificates of a set revoked", "stage", "pki", "set", set, "serials", serials)
	return serials, nil
}

// CondemnSet has Verify refuse every certificate of the set from now on, before
// RevokeSet writes that down: it never waits, for no lock and no disk.
func (a *Authority) CondemnSet(set string) {
	a.records.condemn(a.records.mirror.List(certPrefix), func(_ string, rec record) bool { return rec.Set == set })
}

// meant picks records by their keys and contents.
type meant func(key string, rec record) bool

// revoke condemns what the mirror has, for the store may not answer, and then
// what the store has: a certificate that was issued a moment ago counts too.
func (r *records) revoke(ctx context.Context, meant meant) (serials []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	r.condemn(r.mirror.List(certPrefix), meant)
	entries, err := r.store.List(ctx, certPrefix)
	if err != nil {
		return nil, err
	}
	r.condemn(entries, meant)
	defer func() {
		if err == nil {
			r.written(serials)
		}
	}()
	txn := store.Txn{Urgent: true}
	for _, e := range entries {
		op, found := revocation(e, meant)
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

// condemn makes find call active certificates revoked, before that is written
// down.
func (r *records) condemn(entries []store.Entry, meant meant) {
	r.mu.Lock()
	found := false
	for _, e := range entries {
		if _, is := revocation(e, meant); is {
			found = found || !r.condemned[e.Key]
			r.condemned[e.Key] = true
		}
	}
	r.mu.Unlock()
	if found {
		r.change()
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
// is an active one that is meant. A damaged record lets no certificate pass.
func revocation(e store.Entry, meant meant) (store.Op, bool) {
	var rec record
	if err := json.Unmarshal(e.Value, &rec); err != nil || rec.State != stateActive || !meant(e.Key, rec) {
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
