package links

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

// maxLinks bounds the links of a kind that exist at a time.
const maxLinks = 1000

// Create makes a link. What is wrong with spec is an *Invalid.
func (l *Links) Create(ctx context.Context, spec Spec) (Link, error) {
	spec = spec.complete()
	if err := spec.check(l.cfg.Now()); err != nil {
		return Link{}, err
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if spec.Kind == UEFI && !l.cfg.Exists(spec.Set) {
		return Link{}, &Invalid{[]Fault{{"set", CodeInvalid, fmt.Sprintf("there is no artifact set %d", spec.Set)}}}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	r, err := l.write(ctx, spec)
	if err != nil {
		return Link{}, err
	}
	l.cfg.Log.InfoContext(ctx, "url was made", "kind", r.Kind, "id", r.ID, "name", r.Name, "set", r.Set, "protocols", r.Protocols)
	return r.link(), nil
}

// write tries again when a write whose outcome was unknown has come true
// meanwhile.
func (l *Links) write(ctx context.Context, spec Spec) (record, error) {
	for {
		r, err := l.tryWrite(ctx, spec)
		if !errors.Is(err, store.ErrConflict) {
			return r, err
		}
	}
}

func (l *Links) tryWrite(ctx context.Context, spec Spec) (record, error) {
	last, revision, err := l.lastID(ctx, spec.Kind)
	if err != nil {
		return record{}, err
	}
	// Read after the last id, which each new link changes: none is missed.
	entries, err := l.cfg.Store.List(ctx, kindPrefix(spec.Kind))
	if err != nil {
		return record{}, fmt.Errorf("read urls: %w", err)
	}
	if err := spec.checkAgainst(decodeAll(entries)); err != nil {
		return record{}, err
	}
	r := record{ID: last + 1, Spec: spec, Created: l.cfg.Now().UTC(), Nonce: newNonce()}
	token, err := tokenOf(l.secret, r.Kind, r.ID, r.Nonce)
	if err != nil {
		return record{}, fmt.Errorf("make token: %w", err)
	}
	r.digest = digestOf(token)
	op, err := r.op()
	if err != nil {
		return record{}, err
	}
	l.step("creating")
	at, err := l.cfg.Store.Commit(ctx, store.Txn{
		If:   []store.Condition{store.Unchanged(lastIDKey(r.Kind), revision)},
		Then: []store.Op{store.Set(lastIDKey(r.Kind), strconv.AppendInt(nil, r.ID, 10)), op},
	})
	if err != nil {
		return record{}, fmt.Errorf("write down url: %w", err)
	}
	l.step("created")
	if err := l.mirror.Wait(ctx, at); err != nil {
		return record{}, fmt.Errorf("url %d is written down but not in use yet: %w", r.ID, err)
	}
	return r, nil
}

// checkAgainst compares a new link with those that there are.
func (s Spec) checkAgainst(all []record) error {
	n := 0
	for _, r := range all {
		if !r.Revoked.IsZero() {
			continue
		}
		if n++; r.Set == s.Set && strings.EqualFold(r.Name, s.Name) {
			return &Invalid{[]Fault{{"name", CodeTaken, "has already been taken"}}}
		}
	}
	if n >= maxLinks {
		return &Invalid{[]Fault{{"name", CodeInvalid, fmt.Sprintf("there are %d URLs already: revoke one first", n)}}}
	}
	return nil
}

func (l *Links) lastID(ctx context.Context, kind pki.Kind) (id, revision int64, err error) {
	e, err := l.cfg.Store.Get(ctx, lastIDKey(kind))
	if errors.Is(err, store.ErrNotFound) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read last url number: %w", err)
	}
	if id, err = strconv.ParseInt(string(e.Value), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("last url number %q is damaged: %w", e.Value, err)
	}
	return id, e.Revision, nil
}
