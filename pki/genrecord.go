package pki

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nestboot/nestboot/store"
)

const (
	// rootKey is the store key that holds the fingerprint of the root of
	// generation 1. States from before there were generations have it alone.
	rootKey = "pki/root"

	generationPrefix = "pki/generations/"
)

// generationRecord is what the store keeps of a generation. It is what makes
// one: a folder without it is the beginning of one.
type generationRecord struct {
	Number  int       `json:"number"`
	Root    Digest    `json:"root"` // fingerprint
	Source  string    `json:"source"`
	Created time.Time `json:"created"`
	Dropped bool      `json:"dropped,omitzero"`
	Trust   []byte    `json:"trust,omitempty"` // DER of the root of given server certificates
	Fixed   bool      `json:"fixed,omitzero"`  // artifacts carry the root

	revision int64
}

func generationKey(number int) string { return generationPrefix + strconv.Itoa(number) }

// readRecords returns all generations that there ever were; none: this is the
// first start. A state from before generations has one, and artifacts may
// carry its root.
func (a *Authority) readRecords(ctx context.Context) ([]generationRecord, error) {
	entries, err := a.store.List(ctx, generationPrefix)
	if err != nil {
		return nil, fmt.Errorf("look up the known root: %w", err)
	}
	var all []generationRecord
	for _, e := range entries {
		r := generationRecord{revision: e.Revision}
		if err := json.Unmarshal(e.Value, &r); err != nil {
			return nil, fmt.Errorf("the record of a generation, %s, is damaged: restore the store from a backup: %w", e.Key, err)
		}
		all = append(all, r)
	}
	if len(all) > 0 {
		return all, nil
	}
	known, err := a.store.Get(ctx, rootKey)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up the known root: %w", err)
	}
	r := generationRecord{Number: 1, Source: SourceOwn, Fixed: true}
	if err := r.Root.UnmarshalText(known.Value); err != nil {
		return nil, fmt.Errorf("the recorded root is damaged: restore the store from a backup: %w", err)
	}
	return []generationRecord{r}, nil
}

// writeRecord adds or replaces a record, if nobody else has done so meanwhile.
func (a *Authority) writeRecord(ctx context.Context, r *generationRecord, urgent bool) error {
	value, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode generation %d: %w", r.Number, err)
	}
	txn := store.Txn{
		If:     []store.Condition{store.Unchanged(generationKey(r.Number), r.revision)},
		Then:   []store.Op{store.Set(generationKey(r.Number), value)},
		Urgent: urgent,
	}
	if r.Number == 1 && r.revision == 0 {
		txn.Then = append(txn.Then, store.Set(rootKey, []byte(r.Root.String())))
	}
	if r.revision, err = a.store.Commit(ctx, txn); err != nil {
		return fmt.Errorf("record generation %d: %w", r.Number, err)
	}
	return nil
}

// editRecord changes the record of a generation; nothing is written when that
// alters nothing.
func (a *Authority) editRecord(ctx context.Context, number int, urgent bool, edit func(*generationRecord) error) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	e, err := a.store.Get(ctx, generationKey(number))
	if err != nil {
		return fmt.Errorf("read generation %d: %w", number, err)
	}
	r := generationRecord{revision: e.Revision}
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return fmt.Errorf("read generation %d: %w", number, err)
	}
	if err := edit(&r); err != nil {
		return err
	}
	if value, err := json.Marshal(r); err == nil && string(value) == string(e.Value) {
		return nil
	}
	return a.writeRecord(ctx, &r, urgent)
}
