package store

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"

	"go.uber.org/zap/zapcore"
)

// life ends once: by Close or by the death of etcd.
type life struct {
	log  *slog.Logger
	once sync.Once
	// down is closed at the end, cause may be read afterwards.
	down  chan struct{}
	cause error
}

func newLife(log *slog.Logger) *life {
	return &life{log: log, down: make(chan struct{})}
}

// end ends the life with its reason; only the first call counts.
func (l *life) end(cause error) {
	l.once.Do(func() {
		l.cause = cause
		close(l.down)
	})
}

// reason waits for the end and returns it as ErrUnavailable.
func (l *life) reason() error {
	<-l.down
	return fmt.Errorf("%w: %w", ErrUnavailable, l.cause)
}

// guard runs f on a goroutine where a panic of etcd, also one from touching a
// page of its database that is not on disk, ends the life instead of the
// process. When that happens, or when f meets the fatal hook, nothing is ever
// sent: wait for down, too.
func (l *life) guard(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		debug.SetPanicOnFault(true)
		defer func() {
			if r := recover(); r != nil {
				l.log.Debug("storage engine panicked", "err", r, "stack", string(debug.Stack()))
				l.end(fmt.Errorf("storage engine panicked: %v", r))
			}
		}()
		done <- f()
	}()
	return done
}

// OnWrite is the hook that zap runs after a fatal or panic entry, in place of
// os.Exit and panic. etcd logs one when it can't go on, a log that can't be
// written among them, and counts on never returning: the goroutine ends here,
// the process lives.
func (l *life) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	err := errors.New(entry.Message)
	for _, f := range fields {
		if cause, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			err = fmt.Errorf("%s: %w", entry.Message, cause)
		}
	}
	l.end(err)
	runtime.Goexit()
}
