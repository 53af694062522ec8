package httpboot

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// conn is one connection of a machine, under TLS if there is any. It is what
// is closed when the right to use it ends.
type conn struct {
	net.Conn
	since  time.Time // accepted
	close  func() error
	busy   atomic.Bool             // with a request
	proved atomic.Bool             // somebody has shown a credential on it
	cut    atomic.Pointer[refusal] // why we closed it; nil: we did not

	machine atomic.Pointer[string] // UUID of the one that asked for its script on it

	mu       sync.Mutex
	gathered []byte // what TLS has written and the kernel is yet to be given; nil: it is given everything at once
}

// track takes a connection in; give is called once, when it is closed.
func (s *Server) track(raw net.Conn, give func(*conn)) *conn {
	limitUnsent(raw)
	c := &conn{Conn: raw, since: s.Now()}
	c.close = sync.OnceValue(func() error {
		s.shown.forget(c)
		give(c)
		return raw.Close()
	})
	s.shown.enter(c)
	return c
}

// ReadFrom is how http.ResponseWriter sends a file over a plain connection.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	tcp, ok := c.Conn.(*net.TCPConn)
	if file, is := r.(*fileRange); ok && is {
		return file.sendTo(tcp)
	}
	return io.Copy(writerOnly{c.Conn}, r)
}

// Write is called by TLS for each record of 16 KiB. While they are gathered it
// keeps them: giving the kernel many at once costs less than half as much.
func (c *conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gathered == nil {
		return c.Conn.Write(b)
	}
	c.gathered = append(c.gathered, b...)
	return len(b), nil
}

// gather keeps what is written until scatter, if there is memory for it.
func (c *conn) gather(p *buffers) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gathered = p.batch()
}

// scatter sends what was gathered.
func (c *conn) scatter(p *buffers) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gathered == nil {
		return nil
	}
	_, err := c.Conn.Write(c.gathered)
	p.freeBatch(c.gathered)
	c.gathered = nil
	return err
}

// maxUnsent is what the kernel may keep for a client beyond what its window
// takes: by default megabytes, so that slow clients by the thousand would take
// gigabytes, and over TLS the processor time to encrypt them (T7).
const maxUnsent = 256 << 10

func limitUnsent(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return // it is closed
	}
	_ = raw.Control(func(fd uintptr) { // a kernel that cannot keeps more
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent)
	})
}

// Close may be called again and by anybody: http.Server, tls.Conn, cutOff.
func (c *conn) Close() error { return c.close() }

// cutOff closes the connection in the middle of what it does. What is still
// in the kernel's buffers is thrown away: that may be megabytes of a download.
func (c *conn) cutOff(why *refusal) {
	if !c.cut.CompareAndSwap(nil, why) {
		return
	}
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // on failure it closes all the same, only later
	}
	_ = c.Close() // nobody to tell
}

// connKey finds the conn in a request's context.
type connKey struct{}

// withConn is the ConnContext of our servers.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, under(c))
}

// under is the connection that TLS is spoken over, or c.
func under(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// noteState is the ConnState of our servers.
func noteState(nc net.Conn, state http.ConnState) {
	if c, ok := under(nc).(*conn); ok {
		c.busy.Store(state == http.StateActive)
	}
}

// connOf is the connection that a request came by.
func connOf(req *http.Request) *conn {
	c, _ := req.Context().Value(connKey{}).(*conn) // every listener of ours makes them
	return c
}

// actFor takes down which machine a connection belongs to: files are asked for
// on the same one, and do not name it.
func (c *conn) actFor(machine string) {
	if was := c.machine.Load(); was == nil || *was != machine {
		c.machine.Store(&machine)
	}
}

// actsFor is that machine's UUID, or empty.
func (c *conn) actsFor() string {
	if c == nil || c.machine.Load() == nil {
		return ""
	}
	return *c.machine.Load()
}

// machineOf tells machines apart: by UUID if it is known, else by address.
func machineOf(req *http.Request) string {
	if id := connOf(req).actsFor(); id != "" {
		return id
	}
	return clientAddr(req).String()
}

func remoteAddr(c net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil { // not an IP connection: tests with pipes
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}
