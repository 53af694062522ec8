package tftp

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// content is reproducible noise.
func content(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func section(b []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
}

// files is a Handler over a map; an error in it is returned.
func files(m map[string]any) Handler {
	return func(_ context.Context, name string, _ netip.AddrPort) (*io.SectionReader, error) {
		switch v := m[name].(type) {
		case []byte:
			return section(v), nil
		case error:
			return nil, v
		default:
			return nil, fmt.Errorf("look up %q: %w", name, fs.ErrNotExist)
		}
	}
}

// start serves on address until the test ends, or until stop is called, and
// checks that Serve ends cleanly. Who receives from stop has waited for that end.
func start(tb testing.TB, s *Server, address string) (addr netip.AddrPort, stop func() <-chan struct{}) {
	tb.Helper()
	s.Limits.Grace = cmp.Or(s.Limits.Grace, 100*time.Millisecond) // clients of tests just go away
	udp, err := net.ResolveUDPAddr("udp", address)
	require.NoError(tb, err)
	conn, err := net.ListenUDP("udp", udp)
	require.NoError(tb, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(ctx, conn); err != nil {
			tb.Errorf("serve: %v", err)
		}
	}()
	stop = func() <-chan struct{} { cancel(); return done }
	tb.Cleanup(func() { <-stop() })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort(), stop
}

// rrq renders a request from its strings: name, mode, options.
func rrq(parts ...string) []byte { return packet(opRRQ, parts...) }

func packet(op uint16, parts ...string) []byte {
	p := binary.BigEndian.AppendUint16(nil, op)
	for _, s := range parts {
		p = append(append(p, s...), 0)
	}
	return p
}

func ackPacket(block uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{0, opACK}, block)
}

// client is a raw TFTP client that sees each datagram.
type client struct {
	tb     testing.TB
	conn   *net.UDPConn
	server netip.AddrPort
	peer   netip.AddrPort // sender of the last datagram
	buf    [70000]byte
	ackBuf [4]byte
}

// dial opens a client; from is its own address, "" for any.
func dial(tb testing.TB, from string, server netip.AddrPort) *client {
	tb.Helper()
	local := &net.UDPAddr{}
	if from != "" {
		local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))
	}
	conn, err := net.ListenUDP("udp", local)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = conn.Close() })
	return &client{tb: tb, conn: conn, server: server}
}

func (c *client) send(p []byte, to netip.AddrPort) {
	_, err := c.conn.WriteToUDPAddrPort(p, to)
	require.NoError(c.tb, err)
}

func (c *client) ask(parts ...string) []byte {
	c.send(rrq(parts...), c.server)
	return c.next()
}

// next returns the next datagram, valid until the one after it.
func (c *client) next() []byte {
	p, err := c.recv(5 * time.Second)
	require.NoError(c.tb, err)
	return p
}

func (c *client) recv(wait time.Duration) ([]byte, error) {
	_ = c.conn.SetReadDeadline(time.Now().Add(wait))
	n, from, err := c.conn.ReadFromUDPAddrPort(c.buf[:])
	if err == nil {
		c.peer = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	}
	return c.buf[:n], err
}

func (c *client) ack(block uint16) {
	c.ackBuf = [4]byte{0, opACK, byte(block >> 8), byte(block)}
	_, err := c.conn.WriteToUDPAddrPort(c.ackBuf[:], c.peer)
	require.NoError(c.tb, err)
}

// download is a whole transfer from a port of its own, as firmware does it: on a
// used one, late blocks of the last transfer may come in.
func download(tb testing.TB, from string, server netip.AddrPort, w io.Writer, block, window int, wait time.Duration, parts ...string) error {
	c := dial(tb, from, server)
	defer func() { _ = c.conn.Close() }()
	return c.download(w, block, window, wait, parts...)
}

// download is a whole transfer, repeated requests and windows included. The
// caller names the block size and window that the options lead to.
func (c *client) download(w io.Writer, block, window int, wait time.Duration, parts ...string) error {
	request, heard := rrq(parts...), false
	var transfer netip.AddrPort
	r := receiver{block: block, window: window, out: w, ack: c.ack}
	for tries := 0; tries < 20 && !r.done; {
		if !heard {
			c.send(request, c.server)
		}
		p, err := c.recv(wait)
		if err != nil {
			tries++
			if heard {
				r.repeat()
			}
			continue
		}
		if heard && c.peer != transfer {
			// The answer to a request that was repeated in vain.
			c.send(packet(opERROR, "\x00\x05unknown"), c.peer)
			c.peer = transfer
			continue
		}
		heard, tries, transfer = true, 0, c.peer
		if err := r.take(p); err != nil {
			return err
		}
	}
	if !r.done {
		return errors.New("server does not answer")
	}
	return nil
}

// receiver is the client's side of RFC 7440, as talkative as the RFC allows: it
// acknowledges whatever comes out of turn.
type receiver struct {
	block, window int
	out           io.Writer
	ack           func(uint16)
	got           int64 // blocks
	inWindow      int
	done          bool
}

func (r *receiver) repeat() { r.inWindow = 0; r.ack(uint16(r.got)) }

func (r *receiver) take(p []byte) error {
	switch binary.BigEndian.Uint16(p) {
	case opERROR:
		return fmt.Errorf("server: error %d: %s", p[3], p[4:len(p)-1])
	case opOACK:
		r.repeat()
	case opDATA:
		if binary.BigEndian.Uint16(p[2:]) != uint16(r.got+1) || r.done {
			r.repeat()
			return nil
		}
		_, _ = r.out.Write(p[4:])
		r.got++
		r.inWindow++
		r.done = len(p)-4 < r.block
		if r.done || r.inWindow == r.window {
			r.repeat()
		}
	}
	return nil
}

func sum(b []byte) [32]byte { return sha256.Sum256(b) }

// wire carries the datagrams of one transfer in memory. Recv returns one
// datagram from the client, os.ErrDeadlineExceeded at the deadline, or the cause
// of the context's end.
type wire interface {
	Send(p []byte)
	Recv(ctx context.Context, p []byte, deadline time.Time) (int, error)
}

// loop is a transfer over a wire: a worker's round without its sockets.
type loop struct {
	sender
	source source
	wire   wire
	answer func()
	in     [maxAnswer]byte
	flight []byte
}

func newLoop(w wire, file *io.SectionReader, t terms, pool *bufferPool, answer func()) *loop {
	return &loop{
		sender: newSender(file.Size(), t), source: newSource(file, t.block*t.window, pool), wire: w, answer: answer,
	}
}

func (l *loop) run(ctx context.Context) error {
	defer l.source.close()
	for !l.done() {
		if err := l.send(); err != nil {
			return err
		}
		if err := l.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (l *loop) send() error {
	first, last := l.sender.flight()
	if first > 0 {
		if off, n := l.span(first, last); !l.source.has(off, n) {
			if err := l.source.fill(off); err != nil {
				return err
			}
		}
	}
	l.fly(time.Now())
	for n := first; n <= last; n++ {
		l.flight = l.appendFlight(l.flight[:0], &l.source, n, n)
		l.wire.Send(l.flight)
	}
	return nil
}

func (l *loop) await(ctx context.Context) error {
	for {
		n, err := l.wire.Recv(ctx, l.in[:], l.deadline())
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return l.silence(time.Now())
		}
		if err != nil {
			return err
		}
		a, ok := parseAnswer(l.in[:n])
		if !ok {
			continue
		}
		before := l.answered
		due, err := l.take(a, time.Now())
		if l.answered && !before {
			l.answer()
		}
		if due || err != nil {
			return err
		}
	}
}
