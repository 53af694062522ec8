package pki

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nestboot/nestboot/store"
)

const (
	grantsPrefix  = "grants/"
	machinePrefix = grantsPrefix + "machine/" // holds the id of the machine's last boot
)

// ledger keeps sessions: each in the store under grants/<boot id>, or in
// memory from the moment at which the store refuses it.
type ledger struct {
	store  *store.Store
	mirror *store.Mirror
	log    *slog.Logger
	now    func() time.Time

	// mu is held for reading around each write to the store, and for writing
	// where memory takes a session over or gives it back: a session is never
	// changed in both places.
	mu      sync.RWMutex
	memory  map[string]Session
	flushed time.Time // last attempt
	warned  time.Time
}

// errInMemory says that the store is not the place to ask.
var errInMemory = errors.New("the session is kept in memory")

// change applies step to a session in one transaction and returns the outcome.
// step may run more than once.
func (l *ledger) change(ctx context.Context, boot string, step func(*Session) error) (Session, error) {
	s, err := l.changeStored(ctx, boot, step)
	if l.inMemory(ctx, err) {
		return l.changeInMemory(boot, step)
	}
	return s, err
}

func (l *ledger) changeStored(ctx context.Context, boot string, step func(*Session) error) (Session, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if _, ok := l.memory[boot]; ok {
		return Session{}, errInMemory
	}
	// Whoever makes up boot ids costs us no transaction.
	entry, ok := l.mirror.Get(grantsPrefix + boot)
	if !ok {
		return Session{}, unknownBoot(boot)
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if s, err := l.changeSeen(ctx, entry, step); !errors.Is(err, errAskStore) {
		return s, err
	}
	var s Session
	var refusal error
	revision, err := l.store.Update(ctx, grantsPrefix+boot, func(old []byte) (value []byte, err error) {
		s, value, refusal, err = stepOn(boot, old, step)
		return value, errors.Join(refusal, err)
	})
	switch {
	case refusal != nil:
		return s, refusal
	case err != nil:
		return s, fmt.Errorf("record step of boot %s: %w", boot, err)
	}
	l.seen(ctx, revision)
	return s, nil
}

// errAskStore says that what the mirror has is not enough to go by.
var errAskStore = errors.New("ask the store")

// changeSeen applies step to a session as the mirror has it, which spares the
// store a read. Whoever is refused, or is late, is judged by the store.
func (l *ledger) changeSeen(ctx context.Context, entry store.Entry, step func(*Session) error) (Session, error) {
	boot := strings.TrimPrefix(entry.Key, grantsPrefix)
	s, value, refusal, err := stepOn(boot, entry.Value, step)
	if refusal != nil || err != nil {
		return Session{}, errAskStore
	}
	revision, err := l.store.Commit(ctx, store.Txn{
		If:   []store.Condition{store.Unchanged(entry.Key, entry.Revision)},
		Then: []store.Op{store.Set(entry.Key, value)},
	})
	switch {
	case errors.Is(err, store.ErrConflict):
		return Session{}, errAskStore
	case err != nil:
		return s, fmt.Errorf("record step of boot %s: %w", boot, err)
	}
	l.seen(ctx, revision)
	return s, nil
}

// stepOn decodes, changes and encodes a session. A refusal is the answer to
// the machine, err a fault of ours.
func stepOn(boot string, old []byte, step func(*Session) error) (s Session, value []byte, refusal, err error) {
	if old == nil {
		return s, nil, unknownBoot(boot), nil
	}
	if err := json.Unmarshal(old, &s); err != nil {
		return s, nil, nil, fmt.Errorf("decode session: %w", err)
	}
	if refusal := step(&s); refusal != nil {
		return s, nil, refusal, nil
	}
	value, err = json.Marshal(s)
	return s, value, nil, err
}

// seen waits until the mirror has what was just written, so that the machine's
// next request finds it. The write is done either way, hence no error.
func (l *ledger) seen(ctx context.Context, revision int64) { _ = l.mirror.Wait(ctx, revision) }

// inMemory reports whether err means that memory must take over, and warns if
// that is news.
func (l *ledger) inMemory(ctx context.Context, err error) bool {
	refused := errors.Is(err, store.ErrNoSpace) || errors.Is(err, store.ErrUnavailable) ||
		errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil
	if refused {
		l.mu.Lock()
		l.warn(ctx, err)
		l.mu.Unlock()
	}
	return refused || errors.Is(err, errInMemory)
}

// warn speaks once a minute. The caller holds mu.
func (l *ledger) warn(ctx context.Context, err error) {
	if now := l.now(); now.Sub(l.warned) >= time.Minute {
		l.warned = now
		l.log.WarnContext(ctx, "the store takes no writes, boots go on in memory and a restart will forget them", "stage", "grants", "err", err)
	}
}

// find returns what is known without asking the store.
func (l *ledger) find(boot string) (Session, bool) {
	if s, ok := l.memory[boot]; ok {
		return s, true
	}
	entry, ok := l.mirror.Get(grantsPrefix + boot)
	if !ok {
		return Session{}, false
	}
	var s Session
	return s, json.Unmarshal(entry.Value, &s) == nil
}

// open stores a new session and burns the machine's former one, together.
func (l *ledger) open(ctx context.Context, s Session) error {
	if l.flush(ctx); l.pending() > 0 {
		return l.openInMemory(s)
	}
	err := l.openStored(ctx, s)
	if l.inMemory(ctx, err) {
		return l.openInMemory(s)
	}
	return err
}

func (l *ledger) openStored(ctx context.Context, s Session) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	// A boot of the machine that memory has just taken over can't be burned in
	// the store.
	if len(l.memory) > 0 {
		return errInMemory
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	read := l.glance
	if _, known := l.mirror.Get(grantsPrefix + s.Boot); known {
		read = l.get
	}
	for ; ; read = l.get { // after a conflict the store tells
		txn, err := l.openTxn(ctx, s, read)
		switch {
		case errors.Is(err, errOpen):
			return nil
		case err != nil:
			return err
		}
		revision, err := l.store.Commit(ctx, txn)
		switch {
		case err == nil:
			l.seen(ctx, revision)
			return nil
		case !errors.Is(err, store.ErrConflict):
			return fmt.Errorf("open boot %s: %w", s.Boot, err)
		}
		// The machine opened another boot meanwhile: burn that one.
	}
}

// errOpen says that the boot is open already, as it should be.
var errOpen = errors.New("the boot is open")

// again judges a second opening of a boot. The machine whose first answer was
// lost asks again and must not be turned away.
func (s *Session) again(before Session) error {
	if before.State == Opened && before.Machine == s.Machine && before.Credential == s.Credential {
		return errOpen
	}
	return s.refuse(CodeGrantState, "this boot was opened before")
}

// reader finds an entry. It returns a zero Entry when there is none: its
// revision is 0, which is the condition that there is still none.
type reader func(ctx context.Context, key string) (store.Entry, error)

// openTxn is the transaction that opens a session, if all is as read says.
func (l *ledger) openTxn(ctx context.Context, s Session, read reader) (store.Txn, error) {
	pointer := machinePrefix + s.Machine
	txn := store.Txn{If: []store.Condition{store.Unchanged(grantsPrefix+s.Boot, 0)}}
	e, err := read(ctx, grantsPrefix+s.Boot)
	if err != nil {
		return txn, err
	}
	if e.Value != nil {
		var before Session
		if err := json.Unmarshal(e.Value, &before); err != nil {
			return txn, fmt.Errorf("decode session %s: %w", s.Boot, err)
		}
		return txn, s.again(before)
	}
	last, err := read(ctx, pointer)
	if err != nil {
		return txn, err
	}
	txn.If = append(txn.If, store.Unchanged(pointer, last.Revision))
	if len(last.Value) > 0 && string(last.Value) != s.Boot { // the same: opened just now, which is a conflict
		if err := l.burnLast(ctx, &txn, string(last.Value), read); err != nil {
			return txn, err
		}
	}
	value, err := json.Marshal(s)
	if err != nil {
		return txn, fmt.Errorf("encode session: %w", err)
	}
	txn.Then = append(txn.Then, store.Set(grantsPrefix+s.Boot, value), store.Set(pointer, []byte(s.Boot)))
	return txn, nil
}

// burnLast adds the end of the machine's former boot to txn.
func (l *ledger) burnLast(ctx context.Context, txn *store.Txn, boot string, read reader) error {
	last, err := read(ctx, grantsPrefix+boot)
	if err != nil || last.Value == nil {
		return err
	}
	var s Session
	if err := json.Unmarshal(last.Value, &s); err != nil {
		return fmt.Errorf("decode session %s: %w", boot, err)
	}
	if s.State == Burned {
		return nil
	}
	s.burn(l.now().UTC())
	value, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode session: %w", err)
	}
	txn.If = append(txn.If, store.Unchanged(last.Key, last.Revision))
	txn.Then = append(txn.Then, store.Set(last.Key, value))
	return nil
}

// glance is the reader that asks the mirror. It may lag behind a sweep or
// another process, so it is no witness for a boot that is open already.
func (l *ledger) glance(_ context.Context, key string) (store.Entry, error) {
	entry, _ := l.mirror.Get(key)
	return entry, nil
}

// get is the reader that asks the store.
func (l *ledger) get(ctx context.Context, key string) (store.Entry, error) {
	entry, err := l.store.Get(ctx, key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return store.Entry{}, fmt.Errorf("read %s: %w", key, err)
	}
	return entry, nil
}

// sweep deletes what nobody will ask for. A session that changes meanwhile
// stays for the next sweep.
func (l *ledger) sweep(ctx context.Context) error {
	l.sweepMemory()
	for _, entry := range l.mirror.List(grantsPrefix) {
		var s Session
		if strings.HasPrefix(entry.Key, machinePrefix) || json.Unmarshal(entry.Value, &s) != nil || !s.forgettable(l.now()) {
			continue
		}
		txn := store.Txn{
			If:   []store.Condition{store.Unchanged(entry.Key, entry.Revision)},
			Then: []store.Op{store.Remove(entry.Key)},
		}
		if last, ok := l.mirror.Get(machinePrefix + s.Machine); ok && string(last.Value) == s.Boot {
			txn.If = append(txn.If, store.Unchanged(last.Key, last.Revision))
			txn.Then = append(txn.Then, store.Remove(last.Key))
		}
		if _, err := l.store.Commit(ctx, txn); err != nil && !errors.Is(err, store.ErrConflict) {
			return fmt.Errorf("delete session %s: %w", s.Boot, err)
		}
	}
	return nil
}

func unknownBoot(boot string) error {
	return &GrantError{Code: CodeGrantUnknown, Boot: boot, Reason: "no such boot"}
}
