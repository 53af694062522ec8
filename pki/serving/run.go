package serving

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// pollEvery is how often the files are read. They are few and small, so
	// reading them costs less than a watch that a rename or a mount defeats.
	pollEvery = 2 * time.Second
	// patience is for how long the files may be at odds before that is an error:
	// certificate and key are written one after the other.
	patience = 10 * time.Second
	// retryEvery is how often a choice that failed is made again though nothing
	// has changed: a certificate may have become valid.
	retryEvery = time.Minute
	// repeatEvery is how often what is still wrong is logged again.
	repeatEvery = 24 * time.Hour
)

// notice is what the log was told.
type notice struct {
	fault  string    // why the files are not in use as they lie there; empty: they are
	since  time.Time // when it appeared
	logged time.Time // when it was logged last; zero: not yet

	warnings []string
	warned   time.Time

	text atomic.Pointer[string] // what was logged, for Status; nil: nothing
}

// Run takes up changed files and new generations, and logs what will not work
// for long when that changes and once a day, until ctx ends; then it returns
// nil. What is in use stays in use until all that is needed has changed and is
// good.
func (c *Certificates) Run(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		changed := c.cfg.Authority.Changed()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-changed:
		}
		c.reload(ctx)
		c.warn(ctx)
	}
}

// reload reads the files again and, if something has changed, chooses anew.
func (c *Certificates) reload(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := false
	var faults []error
	for _, l := range c.files {
		changed = l.refresh() || changed
		faults = append(faults, l.err)
	}
	now, last := c.cfg.Now(), &c.last
	if state := c.state(); state != last.state || last.err != nil && now.Sub(last.at) >= retryEvery {
		s, err := c.choose(ctx, c.current.Load())
		*last = attempt{state: state, at: now, err: err}
		if err == nil {
			c.current.Store(s)
		}
		if err == nil && changed {
			c.cfg.Log.InfoContext(ctx, "server certificates taken up", "stage", "pki")
		}
	}
	c.note(ctx, errors.Join(append(faults, last.err)...))
}

// attempt is what came of a choice. Without a change it is made again only after
// a while, and only if it failed: a choice may change the authority, which wakes
// Run.
type attempt struct {
	state string
	at    time.Time
	err   error
}

// state tells what a choice is made from, times apart.
func (c *Certificates) state() string {
	var b strings.Builder
	for _, l := range c.files {
		fmt.Fprintf(&b, "%p ", l.pair) // a pair never changes
	}
	for _, g := range c.cfg.Authority.Generations() {
		fmt.Fprintf(&b, "%d %x ", g.Number, sha256.Sum256(c.cfg.Authority.Trust(g.Number).Raw))
	}
	fmt.Fprint(&b, c.old.Load())
	return b.String()
}

// note logs a fault of the files once it has lasted, and again each day.
func (c *Certificates) note(ctx context.Context, err error) {
	now, n := c.cfg.Now(), &c.notice
	text := ""
	if err != nil {
		text = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	if text == "" {
		n.fault, n.logged = "", time.Time{}
		n.text.Store(nil)
		return
	}
	if n.fault == "" {
		n.since = now
	}
	if n.fault != text {
		n.fault, n.logged = text, time.Time{}
	}
	if now.Sub(n.since) < patience || !n.logged.IsZero() && now.Sub(n.logged) < repeatEvery {
		return
	}
	n.logged = now
	shown := "changed server certificates are not used: " + text
	n.text.Store(&shown)
	c.cfg.Log.ErrorContext(ctx, "changed server certificates are not used, the former ones stay", "stage", "pki", "err", text)
}

// warn logs all warnings when one has come or gone, and each day.
func (c *Certificates) warn(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for _, s := range c.Status() {
		for _, w := range s.Warnings {
			all = append(all, s.Host+": "+w)
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	now, n := c.cfg.Now(), &c.notice
	if slices.Equal(all, n.warnings) && now.Sub(n.warned) < repeatEvery {
		return
	}
	n.warnings, n.warned = all, now
	for _, w := range all {
		c.cfg.Log.WarnContext(ctx, "server certificate", "stage", "pki", "err", w)
	}
}
