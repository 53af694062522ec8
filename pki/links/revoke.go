package links

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

// revokeBatch links are marked in one transaction: each takes a condition and
// two of the store's 1024 operations.
const revokeBatch = 500

// Revoke ends a link: when it returns its token is refused, with
// pki.CodeRevoked for 90 days. It may use the store's reserve of space. When it
// fails, with anything but ErrUnknown, the token is refused all the same, but a
// restart forgets that: Run tries until it is written down.
func (l *Links) Revoke(ctx context.Context, kind pki.Kind, id int64) (Link, error) {
	ended, err := l.end(ctx, kind, func(r record) bool { return r.ID == id })
	if len(ended) == 0 && err == nil {
		return Link{}, ErrUnknown
	}
	if err != nil {
		err = &pki.Unsaved{What: fmt.Sprintf("url %d is refused", id), Err: err}
	}
	if len(ended) == 0 {
		return Link{}, err
	}
	return l.withUses(ended[0].link()), err
}

// RevokeSet ends the links of an artifact set, in the way of Revoke.
func (l *Links) RevokeSet(ctx context.Context, set int64) error {
	if _, err := l.end(ctx, UEFI, func(r record) bool { return r.Set == set }); err != nil {
		return &pki.Unsaved{What: fmt.Sprintf("the urls of artifact set %d are refused", set), Err: err}
	}
	return nil
}

// end revokes what matches: in memory first, for the store may not answer, and
// then what the store has, for a link that was made a moment ago counts too.
func (l *Links) end(ctx context.Context, kind pki.Kind, matches func(record) bool) ([]record, error) {
	ended := l.condemn(l.mirror.List(kindPrefix(kind)), matches)
	l.step("condemned")
	l.writing.Lock()
	defer l.writing.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	for {
		entries, err := l.cfg.Store.List(ctx, kindPrefix(kind))
		if err != nil {
			return ended, fmt.Errorf("read urls: %w", err)
		}
		found := l.condemn(entries, matches)
		if len(found) > 0 {
			ended = found
		}
		if err := l.writeEnds(ctx, found); !errors.Is(err, store.ErrConflict) {
			return ended, err
		}
	}
}

// condemn refuses the tokens of all that matches and is not revoked, and returns
// it, each with the time of its end.
func (l *Links) condemn(entries []store.Entry, matches func(record) bool) []record {
	ended := slices.DeleteFunc(decodeAll(entries), func(r record) bool { return !r.Revoked.IsZero() || !matches(r) })
	now, news := l.cfg.Now().UTC(), false
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range ended {
		key := ended[i].key()
		if _, ok := l.condemned[key]; !ok {
			l.condemned[key], news = now, true
		}
		ended[i].Revoked = l.condemned[key]
	}
	if news {
		close(l.changed)
		l.changed = make(chan struct{})
	}
	return ended
}

// writeEnds writes down that the records have ended. The caller holds writing.
func (l *Links) writeEnds(ctx context.Context, ended []record) error {
	for len(ended) > 0 {
		n := min(len(ended), revokeBatch)
		if err := l.writeBatch(ctx, ended[:n]); err != nil {
			return err
		}
		ended = ended[n:]
	}
	return nil
}

func (l *Links) writeBatch(ctx context.Context, ended []record) error {
	txn := store.Txn{Urgent: true}
	for _, r := range ended {
		op, err := r.op()
		if err != nil {
			return err
		}
		txn.If, txn.Then = append(txn.If, r.unchanged()), append(txn.Then, op, store.Remove(useKey(r.Kind, r.ID)))
	}
	l.step("revoking")
	revision, err := l.cfg.Store.Commit(ctx, txn)
	if err != nil {
		return fmt.Errorf("write down that urls are revoked: %w", err)
	}
	l.step("revoked")
	for _, r := range ended {
		l.cfg.Log.InfoContext(ctx, "url was revoked", "kind", r.Kind, "id", r.ID, "name", r.Name, "set", r.Set)
	}
	// If the mirror does not come along it is done all the same, and memory goes
	// on refusing them.
	_ = l.mirror.Wait(ctx, revision)
	l.settle()
	return nil
}

// settle forgets what the mirror says by itself by now.
func (l *Links) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.condemned, func(key string, _ time.Time) bool {
		e, ok := l.mirror.Get(key)
		if !ok {
			return false
		}
		r, err := decode(e)
		return err == nil && !r.Revoked.IsZero()
	})
}
