package tftp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// maxStrayReplies bounds what forged senders can draw from one transfer.
const maxStrayReplies = 16

// Of a run of datagrams that the kernel cuts (UDP_SEGMENT, Linux 4.18), as many
// go in one call as every version takes.
const (
	maxSegments     = 64
	maxSegmentBytes = 65000
)

// runOf is how many bytes of p go in one call, cut into datagrams of a length.
func runOf(p []byte, length int) int {
	return min(len(p), min(maxSegments, maxSegmentBytes/length)*length)
}

// line is the way to the client of one transfer.
type line interface {
	// send sends datagrams that lie one behind the other, each but the last one
	// of the given length. What the kernel refuses is treated like what the
	// network loses; the error is for whoever gives up.
	send(p []byte, length int) error
	// proven is called once, when the client has answered.
	proven() error
	close()
}

// ownPort is a socket of the transfer's own at a random port, which is the
// transfer's identifier (RFC 1350 section 4).
//
// Until the client has answered it is open to everybody, so that strangers can
// be told that they are wrong here. From then on it is connected to the client:
// the kernel drops what strangers send, and tells them by ICMP; and sending
// looks for no route and reading allocates nothing.
type ownPort struct {
	fd        int
	client    netip.AddrPort
	to        unix.Sockaddr
	allowed   func(netip.Addr) bool
	connected bool
	cuts      bool // the kernel cuts, as far as we know
	length    int  // of the datagrams that it was told to cut
	strays    int
}

func newOwnPort(j job, dscp int, allowed func(netip.Addr) bool) (*ownPort, error) {
	o := &ownPort{client: j.client, to: sockaddr(j.client, j.link), allowed: allowed, cuts: true}
	family := unix.AF_INET
	if j.client.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, explainSocket(err)
	}
	o.fd = fd
	err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(j.local, 0), j.link))
	if err == nil && dscp > 0 {
		err = setDSCP(fd, family, dscp)
	}
	if err != nil {
		o.close()
		return nil, explainSocket(err)
	}
	return o, nil
}

func explainSocket(err error) error {
	if outOfFiles(err) {
		return fmt.Errorf("open a socket for the transfer: %w (raise LimitNOFILE= of the unit, or lower tftp.transfers)", err)
	}
	return fmt.Errorf("open a socket for the transfer: %w", err)
}

func setDSCP(fd, family, dscp int) error {
	if family == unix.AF_INET6 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, dscp<<2)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, dscp<<2)
}

func sockaddr(a netip.AddrPort, link int) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	s := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if a.Addr().IsLinkLocalUnicast() {
		s.ZoneId = uint32(link)
	}
	return s
}

func (o *ownPort) send(p []byte, length int) error {
	for len(p) > 0 {
		n := min(len(p), length)
		if run := runOf(p, length); run > n && o.cut(length) {
			n = run
		}
		err := o.write(p[:n])
		if err != nil && n > length && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) {
			// A device or a tunnel that can't; one by one is always possible.
			o.cuts = false
			_ = unix.SetsockoptInt(o.fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 0)
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// cut asks the kernel, at the first window, to cut what it is given.
func (o *ownPort) cut(length int) bool {
	if o.cuts && o.length != length {
		o.cuts = unix.SetsockoptInt(o.fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, length) == nil
		o.length = length
	}
	return o.cuts
}

func (o *ownPort) write(p []byte) error {
	for {
		var err error
		if o.connected {
			_, err = unix.Write(o.fd, p)
		} else {
			err = unix.Sendto(o.fd, p, 0, o.to)
		}
		// ECONNREFUSED is of a datagram before this one, and anybody can forge the
		// ICMP message behind it. Reading it has taken it away.
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNREFUSED) {
			return err
		}
	}
}

// receive reads a datagram of the client; ok is false when there is none.
func (o *ownPort) receive(p []byte) (n int, ok bool) {
	for {
		n, err := unix.Read(o.fd, p)
		switch {
		case err == nil:
			return n, true
		case !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNREFUSED):
			return 0, false
		}
	}
}

// receiveFrom is receive while strangers may send.
func (o *ownPort) receiveFrom(p []byte) (n int, ok bool) {
	for {
		n, from, err := unix.Recvfrom(o.fd, p, 0)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNREFUSED):
		case err != nil:
			return 0, false
		case same(from, o.to):
			return n, true
		default:
			o.stray(p[:n], from)
		}
	}
}

func same(a, b unix.Sockaddr) bool {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		b, ok := b.(*unix.SockaddrInet4)
		return ok && a.Port == b.Port && a.Addr == b.Addr
	case *unix.SockaddrInet6:
		b, ok := b.(*unix.SockaddrInet6)
		return ok && a.Port == b.Port && a.Addr == b.Addr && a.ZoneId == b.ZoneId
	}
	return false
}

// stray tells a wrong sender so, as RFC 1350 section 4 wants, and leaves the
// transfer alone. An ERROR is not answered with another.
func (o *ownPort) stray(p []byte, from unix.Sockaddr) {
	a, ok := parseAnswer(p)
	if (ok && a.op == opERROR) || o.strays == maxStrayReplies || !o.allowed(addrOf(from)) {
		return
	}
	o.strays++
	reply := errorPacket(&Refusal{Code: codeUnknownTID, Message: "unknown transfer id"})
	_ = unix.Sendto(o.fd, reply, 0, from) // a stranger's loss
}

func addrOf(s unix.Sockaddr) netip.Addr {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(s.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(s.Addr)
	}
	return netip.Addr{}
}

func (o *ownPort) proven() error {
	if err := unix.Connect(o.fd, o.to); err != nil {
		return fmt.Errorf("connect to the client: %w", err)
	}
	o.connected = true
	return nil
}

func (o *ownPort) close() {
	_ = unix.Close(o.fd) // nothing is buffered in a datagram socket
}

// sharedPort is the request port, where a server has only that.
type sharedPort struct {
	conn   *net.UDPConn
	client netip.AddrPort
	from   []byte // control message: the address that the client has asked
	cuts   []byte // the same, and that the kernel cuts; nil: it does not
	length int    // that cuts has
}

func newSharedPort(conn *net.UDPConn, j job) *sharedPort {
	s := &sharedPort{conn: conn, client: j.client}
	if j.local.Is4() {
		s.from = (&ipv4.ControlMessage{Src: j.local.AsSlice()}).Marshal()
		if a, ok := conn.LocalAddr().(*net.UDPAddr); ok && a.IP.To4() == nil {
			s.client = netip.AddrPortFrom(netip.AddrFrom16(j.client.Addr().As16()), j.client.Port())
		}
		return s
	}
	c := ipv6.ControlMessage{Src: j.local.WithZone("").AsSlice()}
	if j.local.IsLinkLocalUnicast() {
		c.IfIndex = j.link
	}
	s.from = c.Marshal()
	return s
}

func (s *sharedPort) send(p []byte, length int) error {
	for len(p) > 0 {
		n, control := min(len(p), length), s.from
		if run := runOf(p, length); run > n && s.cut(length) {
			n, control = run, s.cuts
		}
		_, _, err := s.conn.WriteMsgUDPAddrPort(p[:n], control, s.client)
		if err != nil && n > length && !errors.Is(err, syscall.ENOBUFS) {
			s.cuts, s.length = nil, length
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// cut makes the control message that has the kernel cut.
func (s *sharedPort) cut(length int) bool {
	if s.length == 0 {
		s.length = length
		s.cuts = append(append([]byte(nil), s.from...), segmentControl(length)...)
	}
	return s.cuts != nil
}

// segmentControl renders the control message UDP_SEGMENT (udp(7)).
func segmentControl(length int) []byte {
	b := make([]byte, 0, unix.CmsgSpace(2))
	h := unix.Cmsghdr{Level: unix.IPPROTO_UDP, Type: unix.UDP_SEGMENT}
	h.SetLen(unix.CmsgLen(2))
	b, _ = binary.Append(b, binary.NativeEndian, h) // numbers only
	b = binary.NativeEndian.AppendUint16(b, uint16(length))
	return b[:cap(b)]
}

func (*sharedPort) proven() error { return nil }
func (*sharedPort) close()        {}
