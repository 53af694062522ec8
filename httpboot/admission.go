package httpboot

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/nestboot/nestboot/boot"
)

// defaultBooting is how many machines may boot at a time if nobody says: with a
// gigabit that is 250 KB/s for each, or half an hour for an image of 400 MB.
const defaultBooting = 500

// When a machine's place is free again although nobody said that it is done: it
// fetches nothing for placeIdle, or has it for placeLimit. A waiting machine that
// does not ask again within waitingIdle of the time that it was told has gone.
const (
	placeIdle   = time.Minute
	placeLimit  = 15 * time.Minute
	waitingIdle = time.Minute
	sweepEvery  = time.Second
)

// maxWaiting bounds the queue: who comes later is told to ask again, and has no
// place in it.
const maxWaiting = 65_536

// admission lets so many machines boot at a time and has the others wait, first
// come first served: a storm of thousands would let all of them time out
// together. A machine is known by its UUID.
type admission struct {
	mu      sync.Mutex
	booting map[string]*place
	queue   []*waiting // in the order in which they came
	swept   time.Time
}

// place is a machine that boots.
type place struct {
	since, last time.Time
	fetching    int // answers that run
}

// waiting is one that may not yet.
type waiting struct {
	machine string
	until   time.Time // when it is forgotten unless it has asked
}

// enter reports whether a machine may boot now, where limit may. If not, so many are before it,
// and it should ask again after wait.
func (a *admission) enter(machine string, limit int, now time.Time) (ok bool, ahead int, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sweep(now)
	if p := a.booting[machine]; p != nil { // it begins anew
		p.since, p.last = now, now
		return true, 0, 0
	}
	free := limit - len(a.booting)
	at := slices.IndexFunc(a.queue, func(w *waiting) bool { return w.machine == machine })
	if at < 0 {
		at = len(a.queue)
		if free <= at && at < maxWaiting {
			a.queue = append(a.queue, &waiting{machine: machine})
		}
	}
	if at < free {
		if at < len(a.queue) {
			a.queue = slices.Delete(a.queue, at, at+1)
		}
		if a.booting == nil {
			a.booting = map[string]*place{}
		}
		a.booting[machine] = &place{since: now, last: now}
		return true, 0, 0
	}
	wait = pause(at)
	if at < len(a.queue) {
		a.queue[at].until = now.Add(wait + waitingIdle)
	}
	return false, at, wait
}

// The pause of a machine before it asks again: iPXE cannot draw a number, so we
// do. Who is next comes soon, so that no place stays free for long.
const (
	shortestPause = 5 * time.Second
	longestPause  = 30 * time.Second
	pausePerAhead = 20 * time.Millisecond
)

// pause draws a number of whole seconds.
func pause(ahead int) time.Duration {
	mean := min(shortestPause+time.Duration(ahead)*pausePerAhead, longestPause)
	return (mean/2 + rand.N(mean)).Round(time.Second)
}

// fetches tells that a machine fetches a file, and ended that the answer has: done
// when there is nothing more to come.
func (a *admission) fetches(machine string, now time.Time) (ended func(done bool, now time.Time)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.booting[machine]
	if p == nil {
		return func(bool, time.Time) {}
	}
	p.fetching, p.last = p.fetching+1, now
	return func(done bool, now time.Time) {
		a.mu.Lock()
		defer a.mu.Unlock()
		p.fetching, p.last = p.fetching-1, now
		if done && a.booting[machine] == p {
			delete(a.booting, machine)
		}
	}
}

// end frees a machine's place.
func (a *admission) end(machine string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.booting, machine)
}

// sweep frees the places of those that have gone.
func (a *admission) sweep(now time.Time) {
	if now.Sub(a.swept).Abs() < sweepEvery {
		return
	}
	a.swept = now
	for machine, p := range a.booting {
		idle := p.fetching == 0 && now.Sub(p.last) > placeIdle
		if idle || now.Sub(p.since) > placeLimit {
			delete(a.booting, machine)
		}
	}
	a.queue = slices.DeleteFunc(a.queue, func(w *waiting) bool { return now.After(w.until) })
}

// counts are how many machines boot and how many wait.
func (a *admission) counts(now time.Time) (booting, waiting int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sweep(now)
	return len(a.booting), len(a.queue)
}

// admitBoot has a machine that is to boot wait for its turn.
func (s *Server) admitBoot(p boot.Plan) boot.Plan {
	if p.Action != boot.ActBoot {
		return p
	}
	limit := s.MaxBooting
	if limit == 0 {
		limit = defaultBooting
	}
	ok, ahead, wait := s.admission.enter(p.Machine.UUID, limit, s.Now())
	if ok {
		return p
	}
	return p.Queued(ahead, wait)
}
