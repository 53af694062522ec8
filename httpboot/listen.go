package httpboot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/nestboot/nestboot/boot"
)

// How many connections may be open: in all, per address of those that have
// proved nothing, and per network. A machine holds one or two; a laboratory
// behind one address holds a rack's worth.
const (
	maxConns        = 16_384
	maxConnsPerAddr = 256
	maxConnsPerNet  = 2048
)

// tellEvery is how often turning connections away is recorded.
const tellEvery = 10 * time.Second

// limited is a listener that closes what is over the limits at once, before
// it costs a goroutine (T7). At a limit the oldest idle connection that has
// proved nothing has to go, so who holds many of those keeps nobody out.
type limited struct {
	net.Listener
	s *Server

	mu        sync.Mutex
	total     int
	byNet     map[netip.Addr]map[*conn]struct{}
	told      time.Time
	toldFiles time.Time
	untold    int
}

func newLimited(l net.Listener, s *Server) *limited {
	return &limited{Listener: l, s: s, byNet: map[netip.Addr]map[*conn]struct{}{}}
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			l.tellFiles(err)
			return nil, err // the caller knows net.ErrClosed, and tries again otherwise
		}
		addr := remoteAddr(raw)
		rival, ok := l.room(addr)
		if !ok {
			_ = raw.Close() // over the limit; nobody to tell
			l.tell(addr)
			continue
		}
		if rival != nil {
			_ = rival.Close() // its client comes again
		}
		c := l.s.track(raw, l.give)
		l.take(c)
		return c, nil
	}
}

// network is what one host can have addresses of: in IPv6 a whole /64.
func network(a netip.Addr) netip.Addr {
	if !a.Is6() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil { // no zone, no other length
		return a
	}
	return p.Addr()
}

// room reports whether a connection from a may be taken, and which other one
// has to go for it.
func (l *limited) room(a netip.Addr) (rival *conn, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	open := l.byNet[network(a)]
	if l.total >= maxConns {
		return nil, false
	}
	if len(open) < maxConnsPerAddr {
		return nil, true
	}
	strangers := 0
	var own, any *conn
	for c := range open {
		if c.proved.Load() {
			continue
		}
		mine := remoteAddr(c) == a
		if mine {
			strangers++
		}
		if c.busy.Load() {
			continue
		}
		if mine {
			own = older(own, c)
		}
		any = older(any, c)
	}
	switch {
	case strangers >= maxConnsPerAddr:
		return own, own != nil
	case len(open) >= maxConnsPerNet:
		return any, any != nil
	}
	return nil, true
}

// older returns the one of two connections that was accepted first; a may be nil.
func older(a, b *conn) *conn {
	if a == nil || b.since.Before(a.since) {
		return b
	}
	return a
}

func (l *limited) take(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := network(remoteAddr(c))
	if l.byNet[n] == nil {
		l.byNet[n] = map[*conn]struct{}{}
	}
	l.byNet[n][c] = struct{}{}
	l.total++
}

func (l *limited) give(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := network(remoteAddr(c))
	l.total--
	if delete(l.byNet[n], c); len(l.byNet[n]) == 0 {
		delete(l.byNet, n)
	}
}

// tell records that connections were turned away, now and then.
func (l *limited) tell(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.s.Now()
	if l.untold++; now.Sub(l.told).Abs() < tellEvery {
		return
	}
	l.s.Site.Record(boot.Event{
		Stage: boot.StageLockout, Addr: a, Code: "too-many-connections",
		Detail: fmt.Sprintf("%d connections were turned away, this one the last: there are too many from its address or network, or in all", l.untold),
	})
	l.told, l.untold = now, 0
}

// tellFiles says, now and then, that there are no file descriptors left.
func (l *limited) tellFiles(err error) {
	if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.s.Now(); now.Sub(l.toldFiles).Abs() >= tellEvery {
		l.toldFiles = now
		l.s.Log.Warn("connections have to wait: no file descriptor is left; raise LimitNOFILE of bootd's unit", "addr", l.Addr().String(), "err", err)
	}
}

// handedOver is a listener whose connections somebody else accepted.
type handedOver struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	close func()
}

func newHandedOver(addr net.Addr) *handedOver {
	done := make(chan struct{})
	return &handedOver{addr: addr, conns: make(chan net.Conn), done: done, close: sync.OnceFunc(func() { close(done) })}
}

func (h *handedOver) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handedOver) Close() error   { h.close(); return nil }
func (h *handedOver) Addr() net.Addr { return h.addr }

// give passes a connection on, or closes it when nobody accepts any more.
func (h *handedOver) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		_ = c.Close() // the server stops; the client comes again
	}
}

// closed reports whether an Accept error only means that the listener was closed.
func closed(err error) bool { return errors.Is(err, net.ErrClosed) }

// closeOnDone closes l when ctx ends; stop releases it.
func closeOnDone(ctx context.Context, l net.Listener) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = l.Close() }) // Accept reports it
}
