package httpboot

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
)

// How many connections may be open, in all and per address. A machine holds
// one or two; a laboratory behind one address holds a rack's worth.
const (
	maxConns        = 16_384
	maxConnsPerAddr = 256
)

// limited is a listener that closes what is over the limits at once, before
// it costs a goroutine (T7).
type limited struct {
	net.Listener
	track  func(c net.Conn, give func()) net.Conn // give is to be called once, when c is closed
	mu     sync.Mutex
	total  int
	byAddr map[netip.Addr]int
}

func newLimited(l net.Listener, track func(c net.Conn, give func()) net.Conn) *limited {
	return &limited{Listener: l, track: track, byAddr: map[netip.Addr]int{}}
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err // the caller knows net.ErrClosed
		}
		addr := network(remoteAddr(c))
		if l.take(addr) {
			return l.track(c, func() { l.give(addr) }), nil
		}
		_ = c.Close() // over the limit; nobody to tell
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

func (l *limited) take(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= maxConns || l.byAddr[a] >= maxConnsPerAddr {
		return false
	}
	l.total++
	l.byAddr[a]++
	return true
}

func (l *limited) give(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.byAddr[a]--; l.byAddr[a] == 0 {
		delete(l.byAddr, a)
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
