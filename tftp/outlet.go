package tftp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
)

// maxStrayReplies bounds what forged senders can draw from one transfer.
const maxStrayReplies = 16

// outlet is the wire of a transfer: a socket of its own at a random port, which
// is the transfer's identifier (RFC 1350 section 4). It is not connected to the
// client, since then the kernel would drop strangers' datagrams and no one could
// tell them that they are wrong here.
type outlet struct {
	conn    *net.UDPConn
	client  netip.AddrPort
	allowed func(netip.Addr) bool
	armed   time.Time // read deadline that the socket has
	strays  int
	failed  error // of the last Send, if it failed
}

func newOutlet(local netip.Addr, client netip.AddrPort, allowed func(netip.Addr) bool) (*outlet, error) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)))
	if err != nil {
		return nil, fmt.Errorf("open a socket for the transfer: %w", err)
	}
	return &outlet{conn: conn, client: client, allowed: allowed}, nil
}

// Send treats a datagram that the kernel refuses like one that the network has
// lost: it is sent again. The reason is kept for whoever gives up.
func (o *outlet) Send(p []byte) {
	_, o.failed = o.conn.WriteToUDPAddrPort(p, o.client)
}

// Recv moves the socket's deadline only when it has passed or comes too late:
// each block has a new one, and setting it costs as much as sending the block.
// Who ends the context has to call interrupt.
func (o *outlet) Recv(ctx context.Context, p []byte, deadline time.Time) (int, error) {
	for {
		if o.armed.IsZero() || o.armed.After(deadline) {
			o.arm(deadline)
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		n, from, err := o.conn.ReadFromUDPAddrPort(p)
		switch {
		case err == nil && from == o.client:
			return n, nil
		case err == nil:
			o.stray(p[:n], from)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return 0, fmt.Errorf("read answer: %w", err)
		case ctx.Err() == nil && !time.Now().Before(deadline):
			o.armed = time.Time{}
			return 0, os.ErrDeadlineExceeded
		default:
			o.armed = time.Time{}
		}
	}
}

func (o *outlet) arm(deadline time.Time) {
	o.armed = deadline
	_ = o.conn.SetReadDeadline(deadline) // fails on a closed socket only, as does the read
}

// interrupt makes Recv look at its context. It may be called from anywhere.
func (o *outlet) interrupt() {
	_ = o.conn.SetReadDeadline(time.Unix(1, 0))
}

// stray tells a wrong sender so, as RFC 1350 section 4 wants, and leaves the
// transfer alone. An ERROR is not answered with another.
func (o *outlet) stray(p []byte, from netip.AddrPort) {
	a, ok := parseAnswer(p)
	if (ok && a.op == opERROR) || o.strays == maxStrayReplies || !o.allowed(from.Addr()) {
		return
	}
	o.strays++
	reply := errorPacket(&Refusal{Code: codeUnknownTID, Message: "unknown transfer id"})
	_, _ = o.conn.WriteToUDPAddrPort(reply, from) // a stranger's loss
}

func (o *outlet) close() {
	_ = o.conn.Close() // nothing is buffered in a datagram socket
}
