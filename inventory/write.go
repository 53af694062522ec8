package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/nestboot/nestboot/store"
)

// retryEvery is how long machines wait to be written after the store refused.
const retryEvery = time.Second

// writeTimeout is how long one round of writing may take. The end of Run does
// not break it off: whether a write that was broken off has happened, nobody
// knows.
const writeTimeout = 5 * time.Second

// Run writes what Saw and Done took down until ctx ends, then writes what is
// left, if it can, and returns.
func (m *Machines) Run(ctx context.Context) {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	flush := func() error {
		round, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
		defer cancel()
		return m.flush(round)
	}
	refused := false
	for {
		select {
		case <-ctx.Done():
			if err := flush(); err != nil {
				m.log.Warn("machines were not written down", "err", err)
			}
			return
		case <-m.wake:
			if refused { // the ticker tries again
				continue
			}
		case <-tick.C:
		}
		err := flush()
		if err != nil && !refused {
			m.log.WarnContext(ctx, "machines are kept in memory until they can be written down", "err", err)
		}
		refused = err != nil
	}
}

// writeMachines is how many machines are written in one transaction.
const writeMachines = 100

// flush writes all machines that wait for it.
func (m *Machines) flush(ctx context.Context) error {
	m.mu.Lock()
	waiting := slices.Collect(maps.Values(m.pending))
	m.mu.Unlock()
	for some := range slices.Chunk(waiting, writeMachines) {
		if err := m.write(ctx, some); err != nil {
			return fmt.Errorf("write %d machines, %s among them: %w", len(some), some[0].UUID, err)
		}
	}
	return nil
}

// write stores some machines. New ones get the next numbers in the same
// transaction.
func (m *Machines) write(ctx context.Context, some []Record) error {
	txn, ids, err := m.transaction(ctx, some)
	if err != nil {
		return err
	}
	revision, err := m.store.Commit(ctx, txn)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if err := m.mirror.Wait(ctx, revision); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, rec := range some {
		if now := m.pending[rec.UUID]; now != rec { // it has gone on meanwhile
			now.ID = ids[i]
			m.pending[rec.UUID] = now
			continue
		}
		delete(m.pending, rec.UUID)
	}
	return nil
}

// transaction writes some machines; ids are their numbers.
func (m *Machines) transaction(ctx context.Context, some []Record) (txn store.Txn, ids []int64, err error) {
	var last, revision int64
	for _, rec := range some {
		if rec.ID == 0 {
			if rec.ID, err = m.numberOf(ctx, rec.UUID); err != nil {
				return txn, nil, err
			}
		}
		if rec.ID == 0 {
			if last == 0 {
				if last, revision, err = m.lastID(ctx); err != nil {
					return txn, nil, err
				}
				txn.If = []store.Condition{store.Unchanged(lastIDKey, revision)}
			}
			last++
			rec.ID = last
		}
		value, err := json.Marshal(rec)
		if err != nil {
			return txn, nil, fmt.Errorf("encode machine %s: %w", rec.UUID, err)
		}
		txn.Then, ids = append(txn.Then, store.Set(machinePrefix+rec.UUID, value)), append(ids, rec.ID)
	}
	if len(txn.If) > 0 {
		txn.Then = append(txn.Then, store.Set(lastIDKey, strconv.AppendInt(nil, last, 10)))
	}
	return txn, ids, nil
}

// numberOf is the number that a machine has in the store, 0 if none: an earlier
// write may have succeeded without our knowing.
func (m *Machines) numberOf(ctx context.Context, uuid string) (int64, error) {
	e, err := m.store.Get(ctx, machinePrefix+uuid)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read machine: %w", err)
	}
	rec, err := decode(e.Value)
	return rec.ID, err
}

func (m *Machines) lastID(ctx context.Context) (id, revision int64, err error) {
	e, err := m.store.Get(ctx, lastIDKey)
	if errors.Is(err, store.ErrNotFound) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read last machine number: %w", err)
	}
	if id, err = strconv.ParseInt(string(e.Value), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("last machine number %q is damaged: %w", e.Value, err)
	}
	return id, e.Revision, nil
}
