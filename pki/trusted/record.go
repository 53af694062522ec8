package trusted

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nestboot/nestboot/store"
)

// Keys in the store. A number is never used again, a name is free when its
// entry was removed.
const (
	recordPrefix = "trusted/"
	namePrefix   = "trusted-names/"
	usePrefix    = "trusted-uses/"
	lastIDKey    = "trusted-ids/last"

	// storeTimeout bounds each wait for the store.
	storeTimeout = 5 * time.Second
)

// record is what the store keeps of one entry.
type record struct {
	ID      int64     `json:"id"`
	Spec    Spec      `json:"spec"`
	Created time.Time `json:"created_at"`
	// Removed is when it was removed; nil: it was not.
	Removed *time.Time `json:"removed_at,omitempty"`
}

func recordKey(id int64) string  { return recordPrefix + strconv.FormatInt(id, 10) }
func nameKey(name string) string { return namePrefix + lower(name) }
func useKey(id int64) string     { return usePrefix + strconv.FormatInt(id, 10) }

// load reads all entries.
func (t *Trusted) load(ctx context.Context) (*catalogue, error) {
	entries, err := t.cfg.Store.List(ctx, recordPrefix)
	if err != nil {
		return nil, fmt.Errorf("read entries: %w", err)
	}
	names, err := t.cfg.Store.List(ctx, namePrefix)
	if err != nil {
		return nil, fmt.Errorf("read names: %w", err)
	}
	var live []*member
	var gone []grave
	for _, e := range entries {
		m, removed, err := decode(e)
		if err != nil {
			if m = damaged(e.Key, names, err); m == nil {
				t.log.ErrorContext(ctx, "the record of a trusted certificate is damaged and has no number: it is left alone", "key", e.Key, "err", err)
				continue
			}
			t.log.ErrorContext(ctx, "the record of a trusted certificate is damaged: it accepts nobody", "name", m.spec.Name, "id", m.id, "err", err)
		}
		if removed != nil {
			gone = append(gone, grave{member: m, at: *removed, saved: true})
			continue
		}
		live = append(live, m)
	}
	slices.SortFunc(live, func(a, b *member) int { return int(a.id - b.id) })
	slices.SortFunc(gone, func(a, b grave) int { return a.at.Compare(b.at) })
	all := newCatalogue(nil, gone)
	for _, m := range live {
		all = all.with(m)
	}
	return all, nil
}

func decode(e store.Entry) (*member, *time.Time, error) {
	var r record
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return nil, nil, fmt.Errorf("decode: %w", err)
	}
	if recordKey(r.ID) != e.Key || !kindKnown(r.Spec.Kind) {
		return nil, nil, errors.New("it is of another entry, or of a newer nestboot")
	}
	made, err := r.Spec.rebuild()
	if err != nil {
		return nil, nil, err
	}
	return newMember(r.ID, r.Spec, r.Created, made), r.Removed, nil
}

// rebuild is check for what was checked before: that time has passed is no
// fault of it.
func (s Spec) rebuild() (material, error) {
	return s.check(time.Time{})
}

// damaged is what is left of an entry whose record cannot be read: enough to
// list and to remove it.
func damaged(key string, names []store.Entry, why error) *member {
	number := strings.TrimPrefix(key, recordPrefix)
	id, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return nil
	}
	m := newMember(id, Spec{Name: "damaged-" + number}, time.Time{}, material{})
	m.damaged = fmt.Errorf("its record in the store is damaged: remove it and register it again: %w", why)
	for _, e := range names {
		if string(e.Value) == number {
			m.spec.Name = strings.TrimPrefix(e.Key, namePrefix)
		}
	}
	return m
}

// write claims a number and the name of a new entry, in one transaction.
func (t *Trusted) write(ctx context.Context, spec Spec) (record, error) {
	name := nameKey(spec.Name)
	if _, err := t.cfg.Store.Get(ctx, name); err == nil {
		return record{}, taken("name", "has already been taken")
	} else if !errors.Is(err, store.ErrNotFound) {
		return record{}, fmt.Errorf("look for the name: %w", err)
	}
	last, revision, err := t.lastID(ctx)
	if err != nil {
		return record{}, err
	}
	r := record{ID: last + 1, Spec: spec, Created: t.cfg.Now().UTC().Truncate(time.Second)}
	value, err := json.Marshal(r)
	if err != nil {
		return record{}, fmt.Errorf("encode: %w", err)
	}
	number := strconv.AppendInt(nil, r.ID, 10)
	_, err = t.cfg.Store.Commit(ctx, store.Txn{
		If:   []store.Condition{store.Unchanged(lastIDKey, revision), store.Unchanged(name, 0)},
		Then: []store.Op{store.Set(lastIDKey, number), store.Set(name, number), store.Set(recordKey(r.ID), value)},
	})
	return r, err
}

func (t *Trusted) lastID(ctx context.Context) (id, revision int64, err error) {
	e, err := t.cfg.Store.Get(ctx, lastIDKey)
	if errors.Is(err, store.ErrNotFound) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read the last number: %w", err)
	}
	if id, err = strconv.ParseInt(string(e.Value), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("the last number %.40q is damaged: %w", e.Value, err)
	}
	return id, e.Revision, nil
}

// bury writes that an entry was removed. It may use the store's reserve.
func (t *Trusted) bury(ctx context.Context, m *member, at time.Time) error {
	at = at.UTC()
	value, err := json.Marshal(record{ID: m.id, Spec: m.spec, Created: m.created, Removed: &at})
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	op := store.Set(recordKey(m.id), value)
	if m.damaged != nil { // there is nothing to remember
		op = store.Remove(recordKey(m.id))
	}
	_, err = t.cfg.Store.Commit(ctx, store.Txn{Urgent: true, Then: []store.Op{
		op, store.Remove(nameKey(m.spec.Name)), store.Remove(useKey(m.id)),
	}})
	return err
}

func taken(field, message string) error {
	return &Invalid{[]Fault{{field, CodeTaken, message}}}
}
