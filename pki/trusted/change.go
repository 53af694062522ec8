package trusted

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

// Add registers an authority or a pin. What is wrong with spec is an *Invalid.
// An authority's revocation list is read at once: it must be there and current,
// unless the policy for stale lists accepts that, and it must be the
// authority's in any case.
func (t *Trusted) Add(ctx context.Context, spec Spec) (Entry, error) {
	spec = spec.complete()
	made, err := spec.check(t.cfg.Now())
	if err != nil {
		return Entry{}, err
	}
	spec.PEM = made.pem()
	m := newMember(0, spec, time.Time{}, made)
	if err := t.firstList(ctx, m); err != nil {
		return Entry{}, err
	}
	// Neither ends with the request that asked for it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := t.add(ctx, m); err != nil {
		return Entry{}, err
	}
	t.log.InfoContext(ctx, "certificates are trusted from now on", "stage", "trust", "kind", spec.Kind, "name", spec.Name, "id", m.id)
	return t.all.Load().entry(m, t.cfg.Now()), nil
}

// firstList reads the revocation list of an authority that is to be added.
func (t *Trusted) firstList(ctx context.Context, m *member) error {
	if m.spec.CRL == nil {
		return nil
	}
	t.refresh(ctx, m)
	err := m.source.failed()
	var missing *missingError
	switch {
	case err != nil && errors.As(err, &missing) && m.spec.CRL.Stale == StaleAccept:
		return nil
	case err != nil:
		return &Invalid{[]Fault{{"crl", CodeInvalid, err.Error()}}}
	case m.spec.CRL.Stale == StaleAccept:
		return nil
	case m.unlisted() != nil:
		return &Invalid{[]Fault{{"crl", CodeInvalid, fmt.Sprintf("there is no list of %s, which may have revoked another of the authorities: put it into the file beside the other, "+
			"register those without it, or accept stale lists", nameOf(m.unlisted()))}}}
	case m.stale(t.cfg.Now()):
		return &Invalid{[]Fault{{"crl", CodeInvalid, "the list has ended, so every machine would be refused: publish a current one, or accept stale lists"}}}
	}
	return nil
}

func (t *Trusted) add(ctx context.Context, m *member) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	if err := t.undoAdds(ctx); err != nil {
		return fmt.Errorf("add %s: an addition that failed could not be cleaned up: %w", m.title(), err)
	}
	if err := t.all.Load().accepts(m); err != nil {
		return err
	}
	r, err := t.write(ctx, m.spec)
	switch invalid := (*Invalid)(nil); {
	case errors.As(err, &invalid):
		return err
	case err != nil:
		if r.ID != 0 && !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrNoSpace) {
			t.undo[r.ID] = r // the store may have it all the same
		}
		return fmt.Errorf("add %s: %w", m.title(), err)
	}
	t.step("written")
	m.id, m.created = r.ID, r.Created
	t.saveLists(ctx, m)
	t.replace(func(all *catalogue) *catalogue { return all.with(m) })
	return nil
}

// accepts refuses what there is already.
func (all *catalogue) accepts(m *member) error {
	if len(all.live) >= maxEntries {
		return &Invalid{[]Fault{{"name", CodeInvalid, fmt.Sprintf("there are %d trusted certificates already: remove one first", maxEntries)}}}
	}
	for _, other := range all.live {
		if m.spec.Kind == pki.KindPin && other.spec.Kind == pki.KindPin && other.spec.Match == m.spec.Match && other.pins(m.certs[0]) {
			return taken("pem", "is pinned already: "+other.spec.Name)
		}
	}
	return nil
}

// undoAdds removes what failed additions may have left in the store. The
// caller holds t.writing.
func (t *Trusted) undoAdds(ctx context.Context) error {
	for id, r := range t.undo {
		e, err := t.cfg.Store.Get(ctx, nameKey(r.Spec.Name))
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return err
		case bytes.Equal(e.Value, fmt.Append(nil, id)):
			_, err := t.cfg.Store.Commit(ctx, store.Txn{Urgent: true, Then: []store.Op{
				store.Remove(recordKey(id)), store.Remove(nameKey(r.Spec.Name)),
			}})
			if err != nil {
				return err
			}
		}
		delete(t.undo, id)
	}
	return nil
}

// Remove ends an entry: when it returns, Verify and Good refuse its
// certificates, on open connections too. That holds also when it fails: then
// the entry stays listed as removing, a restart would bring it back, and Run
// tries again to write it down, as the same call does. It returns what the
// entry was.
func (t *Trusted) Remove(ctx context.Context, id int64) (Entry, error) {
	now := t.cfg.Now()
	all := t.all.Load()
	m := all.find(id)
	if m == nil {
		return Entry{}, ErrUnknown
	}
	was := all.entry(m, now)
	// At once, whoever is writing meanwhile.
	t.replace(func(all *catalogue) *catalogue {
		if all.number(id) != m {
			return all // somebody else was faster
		}
		return all.without(m, now, false)
	})
	t.bell.ring()
	t.step("condemned")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	t.writing.Lock()
	defer t.writing.Unlock()
	if err := t.saveRemoval(ctx, m); err != nil {
		return was, &pki.Unsaved{What: m.title() + " is refused", Err: err}
	}
	t.log.InfoContext(ctx, "certificates are trusted no longer", "stage", "trust", "kind", m.spec.Kind, "name", m.spec.Name, "id", id)
	return was, nil
}

// saveRemoval writes down what the catalogue says of a removed entry. The
// caller holds t.writing.
func (t *Trusted) saveRemoval(ctx context.Context, m *member) error {
	for _, g := range t.all.Load().gone {
		if g.member != m || g.saved {
			continue
		}
		if err := t.bury(ctx, m, g.at); err != nil {
			return err
		}
		t.step("buried")
		t.replace(func(all *catalogue) *catalogue { return all.without(m, g.at, true) })
		t.dropLists(ctx, m.id)
	}
	return nil
}
