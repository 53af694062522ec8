// Package store keeps a daemon's state: one small keyed store with revisions,
// compare-and-swap transactions and watch, on an etcd that runs inside the
// process and lives in one directory.
//
// It is not a database for bulk data (a value and its key stay below 1.5 MB,
// the whole store below 2 GB), not a queue, and it knows nothing of machines.
// It opens no socket at all, neither TCP nor Unix: what can't be reached needs
// no protection. Nothing here ever exits the process; when etcd can't write its
// log any more the store answers [ErrUnavailable], tells [Config.OnFatal], and
// every [Mirror] goes on answering from its last snapshot.
//
// Begin with [Open], write with [Store.Put], [Store.Update] or [Store.Commit],
// and read on hot paths from a [Mirror].
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

var (
	// ErrNotFound means that the key does not exist.
	ErrNotFound = errors.New("key not found")
	// ErrConflict means that a condition of a transaction did not hold, or that
	// Update lost against other writers too many times. Nothing was written.
	ErrConflict = errors.New("conflicting change")
	// ErrNoSpace means that the write was refused to keep the free-space reserve
	// or etcd's quota. Reads, watches and mirrors are not affected.
	ErrNoSpace = errors.New("no space for state")
	// ErrUnavailable means that the store is closed or that etcd died. For a
	// write that was under way the outcome is unknown.
	ErrUnavailable = errors.New("state is unavailable")
	// ErrCompacted means that a watch asked for revisions that are no longer
	// kept: list the keys again and watch from there.
	ErrCompacted = errors.New("revision is compacted")

	errClosed = errors.New("store is closed")
)

const (
	defaultReserve = 64 << 20
	// closeTimeout bounds a graceful stop: etcd needs milliseconds unless the
	// disk hangs, and then waiting longer does not help.
	closeTimeout = 15 * time.Second
)

// Config says where the state lives.
type Config struct {
	// Dir holds the state and nothing else. It is made with mode 0700 if
	// missing, tightened to 0700 if it is open to others, and refused if it
	// belongs to another user or holds something that is not ours.
	Dir string
	// Log receives what etcd has to say, warnings and errors at those levels,
	// the rest and all start and stop noise at debug. Nil discards it.
	Log *slog.Logger
	// Reserve is the free space in bytes in Dir's file system below which writes
	// are refused with ErrNoSpace, but for urgent ones (Txn). 0 means 64 MiB, which is one segment of
	// etcd's log; a negative number means no reserve.
	Reserve int64
	// OnFatal is called at most once, on a goroutine of its own, when etcd died
	// after Open has succeeded: the store answers ErrUnavailable from then on
	// and only a restart of the process brings it back. It may call Close.
	OnFatal func(error)
}

// Store is an open store. Its methods may be called concurrently; each is
// bounded by its context and by the life of etcd, whichever ends first.
type Store struct {
	log    *slog.Logger
	dir    *directory
	space  *reserve
	engine *engine
	life   *life
	group  group

	// mu is held to begin a task, and by Close to end the life: no task begins
	// after Close began to wait for them.
	mu    sync.RWMutex
	tasks sync.WaitGroup

	closeOnce sync.Once
	closeErr  error
}

// Open opens the store in cfg.Dir, making it if it does not exist, and returns
// when it answers: about 50 ms for an existing one. It fails with the reason
// when another process has it open, when it is damaged, and when a newer
// nestboot or etcd wrote it; in none of these cases is anything changed. ctx
// bounds the wait for etcd to answer, not the life of the store.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Reserve == 0 {
		cfg.Reserve = defaultReserve
	}
	dir, err := openDirectory(cfg.Dir, cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg.Dir, err)
	}
	s := &Store{
		log:   cfg.Log,
		dir:   dir,
		space: &reserve{path: dir.path, min: uint64(max(cfg.Reserve, 0))},
		life:  newLife(cfg.Log),
	}
	if !hasMember(dir.path) {
		err = s.space.checkFirst()
	}
	if err == nil {
		s.engine, err = startEngine(ctx, dir.path, s.life, cfg.Log)
	}
	if err == nil {
		err = dir.markReady()
	}
	if err != nil {
		if closeErr := s.Close(); errors.Is(s.life.cause, errClosed) {
			err = errors.Join(err, closeErr)
		}
		return nil, fmt.Errorf("open store %s: %w", dir.path, err)
	}
	go s.reportDeath(cfg.OnFatal)
	return s, nil
}

// reportDeath is the one place where the end of etcd is logged and handed on.
func (s *Store) reportDeath(onFatal func(error)) {
	reason := s.life.reason()
	if errors.Is(reason, errClosed) {
		return
	}
	s.log.Error("state can not be written any more, restart when the cause is removed", "err", reason)
	if onFatal != nil {
		onFatal(reason)
	}
}

// Close ends all watches and mirrors, stops etcd and releases the directory.
// What was acknowledged is on disk whether Close runs or not. After etcd died
// it returns the reason and the directory stays locked until the process ends,
// because a dead engine can't be made to let go of its files. Further calls
// return the first result.
func (s *Store) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Store) close() error {
	s.mu.Lock()
	s.life.end(errClosed)
	s.mu.Unlock()
	if reason := s.life.reason(); !errors.Is(reason, errClosed) {
		return reason
	}
	if s.engine != nil {
		if err := s.engine.stop(); err != nil {
			return err
		}
	}
	s.tasks.Wait()
	return s.dir.release()
}

// begin registers a task that Close waits for, unless the store is closed or
// dead. Whoever gets true calls s.tasks.Done.
func (s *Store) begin() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	select {
	case <-s.life.down:
		return false
	default:
		s.tasks.Add(1)
		return true
	}
}

// call runs one request and returns at once when ctx ends or etcd dies. The
// request runs on a goroutine of its own because requests are plain function
// calls into etcd, and a dying etcd leaves its locks held.
func call[T any](ctx context.Context, s *Store, request func(context.Context) (T, error)) (T, error) {
	var zero T
	if !s.begin() {
		return zero, s.life.reason()
	}
	result := make(chan T, 1)
	failed := s.life.guard(func() error {
		defer s.tasks.Done()
		value, err := request(ctx)
		result <- value
		return err
	})
	select {
	case err := <-failed:
		return <-result, s.explain(err)
	case <-s.life.down:
		return zero, s.life.reason()
	case <-ctx.Done():
		return zero, ctx.Err()
	}
}

// live returns a context that also ends with the store.
func (s *Store) live(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		select {
		case <-s.life.down:
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
