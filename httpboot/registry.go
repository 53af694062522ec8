package httpboot

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/pki"
)

// registry knows which credential was shown last on each open connection, so
// that revoking, deleting or expiring it ends them (T12). Only the last one
// counts, because HTTP/1.1 answers one request at a time. Its zero value is
// ready.
type registry struct {
	mu   sync.Mutex
	by   map[credential]*holders
	last map[*conn]credential
}

// credential is what tells one pki.Identity from another.
type credential struct {
	kind        pki.Kind
	id          int64
	fingerprint pki.Digest
}

// holders are the open connections that a credential was shown on.
type holders struct {
	id    pki.Identity
	conns map[*conn]struct{}
}

// show takes down that c acts for id from now on. Ask Good after it, not
// before: a change between the two would be missed. It reports false when c is
// closed already.
func (r *registry) show(c *conn, id pki.Identity) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	former, open := r.last[c]
	if !open {
		return false
	}
	key := credential{id.Kind, id.ID, id.Fingerprint}
	if former != key {
		r.take(c, former)
	}
	if r.by == nil {
		r.by = map[credential]*holders{}
	}
	h := r.by[key]
	if h == nil {
		h = &holders{conns: map[*conn]struct{}{}}
		r.by[key] = h
	}
	h.id, h.conns[c], r.last[c] = id, struct{}{}, key
	c.proved.Store(true)
	return true
}

// enter takes a connection in that has shown nothing yet.
func (r *registry) enter(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = map[*conn]credential{}
	}
	r.last[c] = credential{}
}

// open is how many connections there are.
func (r *registry) open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.last)
}

// forget lets a connection go that is closed.
func (r *registry) forget(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.take(c, r.last[c])
	delete(r.last, c)
}

func (r *registry) take(c *conn, key credential) {
	h := r.by[key]
	if h == nil {
		return
	}
	if delete(h.conns, c); len(h.conns) == 0 {
		delete(r.by, key)
	}
}

// identities are those of which want is true and that an open connection acts
// for.
func (r *registry) identities(want func(pki.Identity) bool) []pki.Identity {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []pki.Identity
	for _, h := range r.by {
		if want(h.id) {
			all = append(all, h.id)
		}
	}
	return all
}

// holding are the open connections that act for id.
func (r *registry) holding(id pki.Identity) []*conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.by[credential{id.Kind, id.ID, id.Fingerprint}]
	if h == nil {
		return nil
	}
	var all []*conn
	for c := range h.conns {
		all = append(all, c)
	}
	return all
}

const (
	// endEvery is how late a connection may be cut after its credential's end.
	endEvery = 250 * time.Millisecond
	// askEvery is for what changes with the time alone and tells nobody, such as
	// a revocation list that grows stale.
	askEvery = time.Minute
)

// watch closes the connections whose credential is not good any more, until
// ctx ends: at once when Changed says so, and when it ends by itself. Requests
// are refused without it; it ends what is running.
func (s *Server) watch(ctx context.Context) {
	for ctx.Err() == nil {
		changed := s.Site.Changed() // before Good is asked
		s.cut(ctx, func(pki.Identity) bool { return true })
		s.untilChanged(ctx, changed)
	}
}

// untilChanged waits until Good has to be asked again, and ends meanwhile what
// ends by itself.
func (s *Server) untilChanged(ctx context.Context, changed <-chan struct{}) {
	tick := time.NewTicker(endEvery)
	defer tick.Stop()
	asked := s.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			return
		case <-tick.C:
		}
		now := s.Now()
		s.endLockouts(now)
		if now.Sub(asked).Abs() >= askEvery { // clocks are set back, too
			return
		}
		s.cut(ctx, func(id pki.Identity) bool { return !id.NotAfter.IsZero() && now.After(id.NotAfter) })
	}
}

// cut closes the connections of those identities of which suspect is true and
// that are not good any more. It records afterwards: the download matters more.
func (s *Server) cut(ctx context.Context, suspect func(pki.Identity) bool) {
	now := s.Now()
	for _, id := range s.shown.identities(suspect) {
		err := s.Site.Good(id, now)
		if err == nil {
			continue
		}
		why := asRefusal(refusalOf(err))
		conns := s.shown.holding(id)
		if len(conns) == 0 {
			continue
		}
		for _, c := range conns {
			c.cutOff(why)
		}
		who := credentialOf(id, 0).String()
		s.Log.InfoContext(ctx, "connections were cut off", "credential", who, "code", why.code, "count", len(conns))
		for _, c := range conns {
			s.Site.Record(boot.Event{
				Stage: boot.StageCutOff, Addr: remoteAddr(c), Duration: now.Sub(c.since), Name: id.Name,
				Credential: who, Code: why.code, Error: why.Error(), Detail: "its connection was closed",
			})
		}
	}
}

// cutOffError is why an answer over c could not be finished, nil if that is
// not of our doing.
func cutOffError(c *conn) error {
	if c == nil {
		return nil
	}
	why := c.cut.Load()
	if why == nil {
		return nil
	}
	return refuse(why.status, why.code, fmt.Errorf("cut off: %w", why.err))
}
