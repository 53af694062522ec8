package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/nestboot/nestboot/integration/rig"
)

// limit is how long a credential may still work after it was revoked.
const limit = time.Second

// result is what became of the connections of a revoked credential.
type result struct {
	command time.Duration // how long the operator's command took
	closed  time.Duration // until the last of the open connections was closed
	answer  time.Duration // until the last good answer
	refused time.Duration // until a new connection was refused
	status  string        // that it was told
	late    int           // connections that were closed later than the limit, or never
}

func (r result) worst() time.Duration { return max(r.closed, r.answer, r.refused) }

func (r result) String() string {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond)) }
	return fmt.Sprintf("worst %s: last connection closed after %s, last good answer %s, new connection refused (%s) after %s; the command took %s; %d late",
		ms(r.worst()), ms(r.closed), ms(r.answer), r.status, ms(r.refused), ms(r.command), r.late)
}

// measure opens the connections, revokes, and watches.
func measure(ctx context.Context, s *rig.LoopbackServer, k kind, n int) (r result, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	to, err := k.make(ctx, s)
	if err != nil {
		return r, err
	}
	clients, err := connect(ctx, s.HTTPS, to, n)
	defer func() {
		for _, c := range clients {
			_ = c.raw.Close() // most are closed by the other side
		}
	}()
	if err != nil {
		return r, err
	}
	var asking sync.WaitGroup
	defer asking.Wait()
	stop, end := context.WithCancel(ctx)
	defer end()
	for _, c := range clients[n*5/6:] {
		asking.Go(func() { c.asking(stop) })
	}
	if all, err := closedOf(clients); err != nil || len(all) > 0 {
		return r, errors.Join(err, fmt.Errorf("%d connections were closed before anything was revoked", len(all)))
	}
	start := time.Now()
	revoked := make(chan error, 1)
	go func() {
		_, err := s.Nestctl(ctx, to.revoke...)
		r.command = time.Since(start)
		revoked <- err
	}()
	if err := r.watch(ctx, s.HTTPS, to, clients, start); err != nil {
		return r, errors.Join(err, <-revoked)
	}
	for _, c := range clients {
		if last := c.last.Load(); last != nil {
			r.answer = max(r.answer, last.Sub(start))
		}
	}
	err = <-revoked // first: it tells how long the command took
	return r, err
}

// connect opens all connections, a few at a time: a half that only asked once,
// a third that downloads, and the rest.
func connect(ctx context.Context, addr string, to credential, n int) ([]*client, error) {
	clients := make([]*client, n)
	errs := make([]error, n)
	var running sync.WaitGroup
	seats := make(chan struct{}, 16)
	for i := range n {
		running.Go(func() {
			seats <- struct{}{}
			defer func() { <-seats }()
			c, err := dial(ctx, addr, to, i)
			if err != nil {
				errs[i] = fmt.Errorf("connection %d: %w", i, err)
				return
			}
			clients[i] = c
			if i >= n/2 && i < n*5/6 {
				errs[i] = c.download(ctx)
			} else {
				errs[i] = c.good(ctx)
			}
		})
	}
	running.Wait()
	var open []*client
	for _, c := range clients {
		if c != nil {
			open = append(open, c)
		}
	}
	return open, errors.Join(errs...)
}

// closedOf are those of the clients whose connection is closed.
func closedOf(clients []*client) (closed []*client, err error) {
	for _, c := range clients {
		open, err := c.open()
		if err != nil {
			return nil, err
		}
		if !open {
			closed = append(closed, c)
		}
	}
	return closed, nil
}

// watch looks at the connections every few milliseconds until all are closed
// and a new one is refused.
func (r *result) watch(ctx context.Context, addr string, to credential, clients []*client, start time.Time) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for left := clients; len(left) > 0 || r.refused == 0; {
		if r.refused == 0 {
			status, err := fresh(ctx, addr, to)
			if err != nil {
				return err
			}
			if status != http.StatusOK {
				r.refused, r.status = time.Since(start), fmt.Sprintf("%d", status)
			}
		}
		var still []*client
		for _, c := range left {
			open, err := c.open()
			if err != nil {
				return err
			}
			if open {
				still = append(still, c)
			}
		}
		now := time.Since(start)
		if len(still) < len(left) {
			r.closed = now
		}
		if now > limit {
			r.late += len(left) - len(still)
		}
		if left = still; now > 10*limit {
			r.late += len(left)
			return nil
		}
		<-tick.C
	}
	return nil
}

// fresh asks on a new connection.
func fresh(ctx context.Context, addr string, to credential) (int, error) {
	c, err := dial(ctx, addr, to, 10*perAddress) // from an address of its own
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.raw.Close() }() // it has served
	return c.ask(ctx, http.MethodHead)
}
