package httpboot

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rates cap what files may leave at, in bytes per second; 0: they do not.
type Rates struct {
	PerMachine int64
	Total      int64
}

// A turn under a cap is as much as the cap lets go in turnTime, within limits.
const (
	turnTime  = 50 * time.Millisecond
	minTurn   = 16 << 10
	maxTurn   = 1 << 20
	maxBehind = 10 * time.Millisecond // what of a cap was not used may be used later
)

// share gives machines their turns. Under a total cap those that want to send
// stand in a ring, however many connections each of them has, and each turn is
// as large as any other's: so a storm ends evenly, and nobody starves. Without a
// cap nobody waits, and the kernel shares the line out.
type share struct {
	rates Rates

	mu    sync.Mutex
	lines map[string]*line
	ring  []*line   // those that wait, the next one first
	free  time.Time // when the next turn may begin
	armed bool      // somebody will look again when it may
}

// line is one machine that downloads.
type line struct {
	machine string
	cap     *rate.Limiter // nil: there is none
	users   int           // answers
	waiting []*turn
}

// turn is one answer that waits.
type turn struct {
	size int64
	come chan struct{}
}

// turnSize is how much may be sent at a time.
func (s *share) turnSize() int64 {
	size := int64(maxTurn)
	for _, r := range []int64{s.rates.PerMachine, s.rates.Total} {
		if r > 0 {
			size = min(size, max(minTurn, int64(float64(r)*turnTime.Seconds())))
		}
	}
	return size
}

// join announces an answer to a machine. Nil: there are no caps.
func (s *share) join(machine string) *line {
	if s.rates == (Rates{}) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lines[machine]
	if l == nil {
		l = &line{machine: machine}
		if s.rates.PerMachine > 0 {
			l.cap = rate.NewLimiter(rate.Limit(s.rates.PerMachine), int(s.turnSize()))
		}
		if s.lines == nil {
			s.lines = map[string]*line{}
		}
		s.lines[machine] = l
	}
	l.users++
	return l
}

// leave ends what join began.
func (s *share) leave(l *line) {
	if l == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(s.lines, l.machine)
	}
}

// take waits until an answer may send so many bytes, at most turnSize.
func (s *share) take(ctx context.Context, l *line, size int64) error {
	if l.cap != nil {
		if err := l.cap.WaitN(ctx, int(size)); err != nil {
			return err
		}
	}
	if s.rates.Total == 0 {
		return nil
	}
	t := &turn{size, make(chan struct{})}
	s.enqueue(l, t)
	select {
	case <-t.come:
		return nil
	case <-ctx.Done():
		s.abandon(t)
		return ctx.Err()
	}
}

func (s *share) enqueue(l *line, t *turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.waiting = append(l.waiting, t); len(l.waiting) == 1 {
		s.ring = append(s.ring, l)
	}
	s.next()
}

// abandon makes the turn of somebody who has left worth nothing.
func (s *share) abandon(t *turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.size = 0
}

// next gives turns out until the line is busy, and looks again when it is not.
func (s *share) next() {
	now := time.Now()
	for len(s.ring) > 0 && !s.free.After(now) {
		l := s.ring[0]
		t := l.waiting[0]
		s.ring, l.waiting = s.ring[1:], l.waiting[1:]
		if len(l.waiting) > 0 {
			s.ring = append(s.ring, l)
		}
		close(t.come)
		if earliest := now.Add(-maxBehind); s.free.Before(earliest) {
			s.free = earliest
		}
		s.free = s.free.Add(time.Duration(float64(t.size) / float64(s.rates.Total) * float64(time.Second)))
	}
	if len(s.ring) == 0 || s.armed {
		return
	}
	s.armed = true
	time.AfterFunc(s.free.Sub(now), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.armed = false
		s.next()
	})
}
