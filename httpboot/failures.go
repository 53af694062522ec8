package httpboot

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/nestboot/nestboot/boot"
)

// How often an address may fail to prove who it is: failBurst times at once,
// and once in failEvery from then on. What is more is answered with 429 and
// not recorded one by one. maxFailing addresses are remembered.
const (
	failBurst  = 20
	failEvery  = 10 * time.Second
	maxFailing = 8192
)

// codeTooMany is the code of the answer to who has failed too often.
const codeTooMany = "too-many-failures"

// failures counts failed attempts by address; in IPv6 a whole /64 counts as
// one. Who proves itself is never asked about here, so a rack that shares its
// address with an attacker boots. Its zero value is ready.
type failures struct {
	mu    sync.Mutex
	by    map[netip.Addr]*failing
	ended []lockout
}

type failing struct {
	allowed *rate.Limiter
	lockout // of a zero time: it is not locked out
}

// lockout is the time in which an address was answered with 429.
type lockout struct {
	addr    netip.Addr
	since   time.Time
	refused int
}

// fail takes a failure down. wait is how long the address should stay away, 0
// if it has not failed too often; begins is true at the first time.
func (f *failures) fail(addr netip.Addr, now time.Time) (wait time.Duration, begins bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	addr = network(addr)
	b := f.by[addr]
	if b == nil {
		b = f.put(addr, now)
	}
	if b.allowed.AllowN(now, 1) {
		return 0, false
	}
	if begins = b.since.IsZero(); begins {
		b.since = now
	}
	b.refused++
	missing := 1 - b.allowed.TokensAt(now)
	return time.Duration(missing * float64(failEvery)), begins
}

func (f *failures) put(addr netip.Addr, now time.Time) *failing {
	if f.by == nil {
		f.by = map[netip.Addr]*failing{}
	}
	if len(f.by) >= maxFailing {
		f.drop(now)
	}
	b := &failing{allowed: rate.NewLimiter(rate.Every(failEvery), failBurst), lockout: lockout{addr: addr}}
	f.by[addr] = b
	return b
}

// drop makes room for a quarter of the table: those that were not locked out
// go first.
func (f *failures) drop(now time.Time) {
	f.sweep(now)
	for _, all := range []bool{false, true} {
		for _, b := range f.by {
			if len(f.by) <= maxFailing*3/4 {
				return
			}
			if all || b.since.IsZero() {
				f.end(b)
			}
		}
	}
}

// sweep ends what an address has lived down: all of its attempts are back.
func (f *failures) sweep(now time.Time) {
	for _, b := range f.by {
		if b.allowed.TokensAt(now) >= failBurst {
			f.end(b)
		}
	}
}

func (f *failures) end(b *failing) {
	delete(f.by, b.addr)
	if !b.since.IsZero() {
		f.ended = append(f.ended, b.lockout)
	}
}

// over are the lockouts that have ended since it was asked the last time.
func (f *failures) over(now time.Time) []lockout {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sweep(now)
	ended := f.ended
	f.ended = nil
	return ended
}

// failed counts an attempt to prove who asks that came to nothing. It returns
// err, or what to answer instead when the address has failed too often. A
// lockout is recorded at its beginning and at its end.
func (s *Server) failed(req *http.Request, err error) error {
	addr, now := clientAddr(req), s.Now()
	wait, begins := s.failures.fail(addr, now)
	if wait == 0 {
		return err
	}
	if begins {
		s.Site.Record(boot.Event{
			Stage: boot.StageLockout, Addr: addr, Code: codeTooMany, Error: err.Error(),
			Detail: fmt.Sprintf("%d failed attempts from this address; further ones are answered with 429 and counted", failBurst),
		})
	}
	return &refusal{status: http.StatusTooManyRequests, code: codeTooMany, err: err, retry: max(wait.Round(time.Second), time.Second)}
}

// endLockouts records what ended.
func (s *Server) endLockouts(now time.Time) {
	for _, l := range s.failures.over(now) {
		s.Site.Record(boot.Event{
			Stage: boot.StageLockout, Addr: l.addr, Duration: now.Sub(l.since),
			Detail: fmt.Sprintf("over; %d failed attempts were answered with 429", l.refused),
		})
	}
}

// counted reports whether an error is part of a lockout: it is in its summary.
func counted(err error) bool {
	var r *refusal
	return errors.As(err, &r) && r.code == codeTooMany
}
