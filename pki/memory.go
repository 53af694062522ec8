package pki

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/nestboot/nestboot/store"
)

// maxInMemory bounds the sessions that wait for the store; they take about a
// kilobyte each.
const maxInMemory = 16384

func (l *ledger) changeInMemory(boot string, step func(*Session) error) (Session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.find(boot)
	if !ok {
		return Session{}, unknownBoot(boot)
	}
	if err := step(&s); err != nil {
		return s, err
	}
	l.remember(s)
	return s, nil
}

func (l *ledger) openInMemory(s Session) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if before, ok := l.find(s.Boot); ok {
		if err := s.again(before); !errors.Is(err, errOpen) {
			return err
		}
		return nil
	}
	for _, former := range l.formerInMemory(s.Machine) {
		former.burn(s.Opened)
		l.remember(former)
	}
	l.remember(s)
	return nil
}

// formerInMemory returns the live sessions of a machine.
func (l *ledger) formerInMemory(machine string) []Session {
	var former []Session
	for _, s := range l.memory {
		if s.Machine == machine && s.State != Burned {
			former = append(former, s)
		}
	}
	if last, ok := l.mirror.Get(machinePrefix + machine); ok {
		if s, ok := l.find(string(last.Value)); ok && s.State != Burned {
			former = append(former, s)
		}
	}
	return former
}

// remember makes room by forgetting the oldest boot.
func (l *ledger) remember(s Session) {
	if _, ok := l.memory[s.Boot]; !ok && len(l.memory) >= maxInMemory {
		oldest := s
		for _, other := range l.memory {
			if other.Opened.Before(oldest.Opened) {
				oldest = other
			}
		}
		delete(l.memory, oldest.Boot)
	}
	l.memory[s.Boot] = s
}

func (l *ledger) sweepMemory() {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.memory, func(_ string, s Session) bool { return s.forgettable(l.now()) })
}

func (l *ledger) pending() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return len(l.memory)
}

// flush hands sessions in memory to the store, until it refuses one. It tries
// at most once a minute, since a dead store may take its time to say so.
func (l *ledger) flush(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.now(); len(l.memory) == 0 || now.Sub(l.flushed) < time.Minute {
		return
	}
	l.flushed = l.now()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	for _, s := range l.memory {
		if err := l.giveBack(ctx, s); err != nil {
			l.warn(ctx, err)
			return
		}
	}
	l.log.InfoContext(ctx, "the store takes writes again, boots are recorded", "stage", "grants")
}

// giveBack hands a session to the store, unless the machine's boots there have
// gone on: what the store has burned stays so.
func (l *ledger) giveBack(ctx context.Context, s Session) error {
	entry, before, err := l.read(ctx, s.Boot)
	if err != nil {
		return err
	}
	if s.State == Burned || before.State != Burned {
		if err := l.writeBack(ctx, s, entry.Revision); err != nil {
			return err
		}
	}
	delete(l.memory, s.Boot)
	return nil
}

func (l *ledger) writeBack(ctx context.Context, s Session, revision int64) error {
	txn := store.Txn{If: []store.Condition{store.Unchanged(grantsPrefix+s.Boot, revision)}}
	if s.State != Burned {
		pointer, newer, err := l.newer(ctx, s)
		switch {
		case err != nil:
			return err
		case newer:
			s.burn(l.now().UTC())
		default:
			txn.If = append(txn.If, store.Unchanged(machinePrefix+s.Machine, pointer.Revision))
			txn.Then = append(txn.Then, store.Set(machinePrefix+s.Machine, []byte(s.Boot)))
		}
	}
	value, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode session: %w", err)
	}
	txn.Then = append(txn.Then, store.Set(grantsPrefix+s.Boot, value))
	if revision, err = l.store.Commit(ctx, txn); err != nil {
		return fmt.Errorf("record session: %w", err)
	}
	l.seen(ctx, revision)
	return nil
}

// newer reports whether the machine has a later boot in the store that is still
// going on, and returns the entry that names the machine's boot there.
func (l *ledger) newer(ctx context.Context, s Session) (pointer store.Entry, newer bool, err error) {
	pointer, err = l.get(ctx, machinePrefix+s.Machine)
	if err != nil || pointer.Value == nil || string(pointer.Value) == s.Boot {
		return pointer, false, err
	}
	last, ok := l.memory[string(pointer.Value)] // knows better than the store
	if !ok {
		_, last, err = l.read(ctx, string(pointer.Value))
	}
	return pointer, last.State != Burned && last.Opened.After(s.Opened), err
}

// read asks the store for a session, which is zero when there is none.
func (l *ledger) read(ctx context.Context, boot string) (entry store.Entry, s Session, err error) {
	entry, err = l.get(ctx, grantsPrefix+boot)
	if err != nil || entry.Value == nil {
		return entry, s, err
	}
	if err := json.Unmarshal(entry.Value, &s); err != nil {
		return entry, s, fmt.Errorf("decode session %s: %w", boot, err)
	}
	return entry, s, nil
}
