package pki

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
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
		return &Unsaved{"certificate " + serial + " is refused", err}
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
// It may use the store's reserve of space, and does not end with ctx. When it
// fails, with an *Unsaved, Verify refuses the certificates all the same.
func (a *Authority) RevokeSet(ctx context.Context, set string) (serials []string, err error) {
	if serials, err = a.records.revoke(ctx, func(_ string, rec record) bool { return rec.Set == set }); err != nil {
		return serials, &Unsaved{"the certificates of set " + set + " are refused", err}
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
func (r *records) revoke(ctx context.Context, meant meant) ([]string, error) {
	r.condemn(r.mirror.List(certPrefix), meant)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	defer r.settle()
	var all []string
	for {
		entries, err := r.store.List(ctx, certPrefix)
		if err != nil {
			return all, err
		}
		r.condemn(entries, meant)
		serials, err := r.writeEnds(ctx, entries, meant)
		all = append(all, serials...)
		if !errors.Is(err, store.ErrConflict) { // somebody else was faster
			return all, err
		}
	}
}

// writeEnds marks those of entries that are meant, and returns the serial
// numbers of which the store has it.
func (r *records) writeEnds(ctx context.Context, entries []store.Entry, meant meant) (serials []string, err error) {
	txn, marked := store.Txn{Urgent: true}, []string{}
	for i, e := range entries {
		if op, found := revocation(e, meant); found {
			marked = append(marked, e.Key[len(certPrefix):])
			txn.If, txn.Then = append(txn.If, store.Unchanged(e.Key, e.Revision)), append(txn.Then, op)
		}
		if len(marked) == 0 || len(marked) < revokeBatch && i < len(entries)-1 {
			continue
		}
		revision, err := r.store.Commit(ctx, txn)
		if err != nil {
			return serials, err
		}
		// If the mirror does not come along it is done all the same, and memory
		// goes on refusing them.
		_ = r.mirror.Wait(ctx, revision)
		serials = append(serials, marked...)
		txn, marked = store.Txn{Urgent: true}, nil
	}
	return serials, nil
}

// save writes down the revocations that only memory knows.
func (r *records) save(ctx context.Context) error {
	r.mu.RLock()
	pending := maps.Clone(r.condemned)
	r.mu.RUnlock()
	if len(pending) == 0 {
		return nil
	}
	_, err := r.revoke(ctx, func(key string, _ record) bool { return pending[key] })
	return err
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

// settle forgets what the mirror says by itself by now.
func (r *records) settle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.condemned, func(key string, _ bool) bool {
		e, ok := r.mirror.Get(key)
		_, active := revocation(e, func(string, record) bool { return true })
		return ok && !active
	})
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
