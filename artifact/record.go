package artifact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nestboot/nestboot/store"
)

// Keys in the store. A set's number is never used again, its name is free when
// the set is gone.
const (
	recordPrefix = "artifacts/"
	namePrefix   = "artifact-names/"
	usePrefix    = "artifact-uses/"
	lastIDKey    = "artifact-ids/last"
)

// maxSets bounds the sets that exist at a time.
const maxSets = 1000

// state is how far a set has come in its life on disk.
type state string

const (
	creating state = "creating" // its certificate may not exist yet; nobody was told of it
	ready    state = "ready"
	deleting state = "deleting" // its certificate may still be good; it is served no longer
)

// record is what the store keeps of a set. It holds no key and no secret.
type record struct {
	ID      int64     `json:"id"`
	Spec    Spec      `json:"spec"`
	State   state     `json:"state"`
	Created time.Time `json:"created_at"`
	// Generation is the one whose root the set's files carry; 0: from before
	// there were several.
	Generation int `json:"generation,omitzero"`

	// revision is what claim wrote.
	revision int64
	// damaged is why the record could not be read; ID and name alone are known.
	damaged error
}

func recordKey(id int64) string { return recordPrefix + strconv.FormatInt(id, 10) }
func useKey(id int64) string    { return usePrefix + strconv.FormatInt(id, 10) }

func (r record) generation() int { return max(r.Generation, 1) }

// dir is the folder of the set's certificate and key.
func (r record) dir() string { return fmt.Sprintf("%s-%d", r.Spec.Name, r.ID) }

// records reads all sets.
func (s *Sets) records(ctx context.Context) ([]record, error) {
	entries, err := s.cfg.Store.List(ctx, recordPrefix)
	if err != nil {
		return nil, fmt.Errorf("read artifact sets: %w", err)
	}
	var all []record
	for _, e := range entries {
		var r record
		if err := json.Unmarshal(e.Value, &r); err == nil && recordKey(r.ID) == e.Key {
			all = append(all, r)
			continue
		}
		if r, err = s.damaged(ctx, e.Key); err != nil {
			s.cfg.Log.ErrorContext(ctx, "the record of an artifact set is damaged and it has no name: it is left alone", "key", e.Key, "err", err)
			continue
		}
		all = append(all, r)
	}
	return all, nil
}

// damaged is what is left of a set whose record cannot be read: enough to list
// and to delete it.
func (s *Sets) damaged(ctx context.Context, key string) (record, error) {
	number := strings.TrimPrefix(key, recordPrefix)
	id, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return record{}, fmt.Errorf("the key has no number: %w", err)
	}
	names, err := s.cfg.Store.List(ctx, namePrefix)
	if err != nil {
		return record{}, fmt.Errorf("look for the name: %w", err)
	}
	for _, e := range names {
		if string(e.Value) == number {
			return record{
				ID: id, State: ready, Spec: Spec{Name: strings.TrimPrefix(e.Key, namePrefix)},
				damaged: errors.New("its record in the store is damaged: delete it and create another"),
			}, nil
		}
	}
	return record{}, fmt.Errorf("no name belongs to number %d", id)
}

// claim gives a new set its number and its name, in one transaction, and enters
// it. The caller unlocks the member's work when the set is made: nobody can
// change or delete it before.
func (s *Sets) claim(ctx context.Context, spec Spec) (*member, error) {
	s.claiming.Lock() // several would only make each other try again
	defer s.claiming.Unlock()
	if len(s.members()) >= maxSets {
		return nil, &Invalid{[]Fault{{"name", CodeInvalid, fmt.Sprintf("there are %d sets already: delete one first", maxSets)}}}
	}
	r, err := s.writeClaim(ctx, spec)
	if err != nil {
		return nil, err
	}
	m := &member{id: r.ID}
	m.work.Lock()
	s.enter(m, r)
	return m, nil
}

func (s *Sets) writeClaim(ctx context.Context, spec Spec) (record, error) {
	name := namePrefix + spec.Name
	if _, err := s.cfg.Store.Get(ctx, name); err == nil {
		return record{}, &Invalid{[]Fault{{"name", CodeTaken, "has already been taken"}}}
	} else if !errors.Is(err, store.ErrNotFound) {
		return record{}, fmt.Errorf("look for set %s: %w", spec.Name, err)
	}
	last, revision, err := s.lastID(ctx)
	if err != nil {
		return record{}, err
	}
	r := record{ID: last + 1, Spec: spec, State: creating, Created: s.cfg.Now().UTC().Truncate(time.Second)}
	value, err := json.Marshal(r)
	if err != nil {
		return record{}, fmt.Errorf("encode set %s: %w", spec.Name, err)
	}
	number := strconv.AppendInt(nil, r.ID, 10)
	r.revision, err = s.cfg.Store.Commit(ctx, store.Txn{
		If:   []store.Condition{store.Unchanged(lastIDKey, revision), store.Unchanged(name, 0)},
		Then: []store.Op{store.Set(lastIDKey, number), store.Set(name, number), store.Set(recordKey(r.ID), value)},
	})
	if err != nil {
		return record{}, fmt.Errorf("write down set %s: %w", spec.Name, err)
	}
	return r, nil
}

// LastID is the highest number that a set has ever had.
func (s *Sets) LastID(ctx context.Context) (int64, error) {
	id, _, err := s.lastID(ctx)
	return id, err
}

func (s *Sets) lastID(ctx context.Context) (id, revision int64, err error) {
	e, err := s.cfg.Store.Get(ctx, lastIDKey)
	if errors.Is(err, store.ErrNotFound) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read last set number: %w", err)
	}
	if id, err = strconv.ParseInt(string(e.Value), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("last set number %q is damaged: %w", e.Value, err)
	}
	return id, e.Revision, nil
}

// put replaces the record of a set that exists. What takes something away is
// urgent: it may use the store's reserve of space.
func (s *Sets) put(ctx context.Context, r record, urgent bool, conditions ...store.Condition) error {
	value, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode set %s: %w", r.Spec.Name, err)
	}
	txn := store.Txn{If: conditions, Then: []store.Op{store.Set(recordKey(r.ID), value)}, Urgent: urgent}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if _, err := s.cfg.Store.Commit(ctx, txn); err != nil {
		return fmt.Errorf("write down set %s: %w", r.Spec.Name, err)
	}
	return nil
}

// erase forgets a set and frees its name.
func (s *Sets) erase(ctx context.Context, r record) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	_, err := s.cfg.Store.Commit(ctx, store.Txn{Urgent: true, Then: []store.Op{
		store.Remove(recordKey(r.ID)), store.Remove(namePrefix + r.Spec.Name), store.Remove(useKey(r.ID)),
	}})
	if err != nil {
		return fmt.Errorf("forget set %s: %w", r.Spec.Name, err)
	}
	return nil
}
