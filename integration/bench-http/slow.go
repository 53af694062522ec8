package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// What a slow client takes: slowRead bytes each slowEvery, 4 KB a second, into
// a buffer that holds little more.
const (
	slowRead   = 2 << 10
	slowEvery  = 500 * time.Millisecond
	slowBuffer = 8 << 10
)

// crowd are clients that read next to nothing, from addresses of their own.
type crowd struct {
	running sync.WaitGroup
	stop    context.CancelFunc
	broken  atomic.Int64
}

// gather opens n slow downloads and returns when each has begun.
func gather(ctx context.Context, to target, n int) (*crowd, error) {
	ctx, cancel := context.WithCancel(ctx)
	c := &crowd{stop: cancel}
	errs := make([]error, n)
	var begun sync.WaitGroup
	turn := make(chan struct{}, 16) // handshakes at a time
	for i := range n {
		begun.Add(1)
		c.running.Go(func() {
			turn <- struct{}{}
			began := sync.OnceFunc(func() { <-turn; begun.Done() })
			defer began()
			err := crawl(ctx, to, net.IPv4(127, 1, byte(i>>8), byte(i)), began)
			if errs[i] = err; err != nil {
				c.broken.Add(1)
			}
		})
	}
	begun.Wait()
	if c.broken.Load() > 0 {
		c.end()
		first := errs[slices.IndexFunc(errs, func(err error) bool { return err != nil })]
		return nil, fmt.Errorf("open %d slow downloads: %d failed, one with: %w", n, c.broken.Load(), first)
	}
	return c, nil
}

// crawl reads slowly until ctx ends, which is no error.
func crawl(ctx context.Context, to target, from net.IP, began func()) error {
	dialing, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	raw, err := dial(dialing, to, from, slowBuffer)
	if err != nil {
		return err
	}
	defer func() { _ = raw.Close() }() // in the middle of a download
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	c, err := encrypt(dialing, raw, to)
	if err != nil {
		return err
	}
	if _, _, err := ask(dialing, c, to.path); err != nil {
		return err
	}
	began()
	buf := make([]byte, slowRead)
	tick := time.NewTicker(slowEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if _, err := c.Read(buf); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// end closes the connections and returns how many had broken before.
func (c *crowd) end() int {
	broken := int(c.broken.Load())
	c.stop()
	c.running.Wait()
	return broken
}
