package tftp

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// shortage tells the operator once that the process has no file descriptors
// left, and once that it has: while they are short every request finds none, and
// the next one to end makes room for another.
type shortage struct {
	log *slog.Logger

	mu   sync.Mutex
	last time.Time // when there was none; zero while there are some
}

// observe is told how every attempt to open a socket and a file has ended.
func (s *shortage) observe(ctx context.Context, err error, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case outOfFiles(err):
		if s.last.IsZero() {
			s.log.ErrorContext(ctx, "tftp has no room for further transfers", "stage", "tftp", "err", err)
		}
		s.last = now
	case err == nil && !s.last.IsZero() && now.Sub(s.last) >= dropInterval:
		s.log.InfoContext(ctx, "tftp has room for transfers again", "stage", "tftp", "since", s.last.Format(time.TimeOnly))
		s.last = time.Time{}
	}
}

func outOfFiles(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}
