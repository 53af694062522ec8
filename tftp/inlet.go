package tftp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	// A request longer than maxRequest must be told from one that is cut off.
	requestBuffer = maxRequest + 1
	// queueBytes holds the requests of a rack that is switched on at once; the
	// kernel's default is about 270 datagrams.
	queueBytes = 1 << 20

	unknownMTU   = 1500
	mtuLife      = 30 * time.Second
	headersIPv4  = 20 + 8 + headerSize
	headersIPv6  = 40 + 8 + headerSize
	controlBytes = 128 // packet info of both families
)

// arrival is a datagram at the request port and where it came in.
type arrival struct {
	packet []byte // valid until the next one is read
	client netip.AddrPort
	local  netip.Addr // the address the client has asked, never a wildcard
	link   int        // interface index, 0 if unknown
}

// inlet reads requests. It asks the kernel for each one's destination: on a host
// with several addresses, firmware drops replies that come from another one.
type inlet struct {
	conn   *net.UDPConn
	packet [requestBuffer]byte
	oob    [controlBytes]byte
	mtus   map[int]mtu
}

type mtu struct {
	bytes int
	read  time.Time
}

func newInlet(conn *net.UDPConn, dscp int) (*inlet, error) {
	// A dual-stack socket has both, others one.
	err4 := ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
	err6 := ipv6.NewPacketConn(conn).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
	if err4 != nil && err6 != nil {
		return nil, fmt.Errorf("ask for destination addresses on %s: %w", conn.LocalAddr(), errors.Join(err4, err6))
	}
	_ = conn.SetReadBuffer(queueBytes) // as far as the system allows
	if dscp > 0 {
		err4, err6 = ipv4.NewPacketConn(conn).SetTOS(dscp<<2), ipv6.NewPacketConn(conn).SetTrafficClass(dscp<<2)
		if err4 != nil && err6 != nil {
			return nil, fmt.Errorf("set DSCP %d on %s: %w", dscp, conn.LocalAddr(), errors.Join(err4, err6))
		}
	}
	return &inlet{conn: conn, mtus: make(map[int]mtu)}, nil
}

func (in *inlet) read() (arrival, error) {
	n, oobn, _, client, err := in.conn.ReadMsgUDPAddrPort(in.packet[:], in.oob[:])
	if err != nil {
		return arrival{}, fmt.Errorf("read request: %w", err)
	}
	a := arrival{
		packet: in.packet[:n],
		client: netip.AddrPortFrom(client.Addr().Unmap(), client.Port()),
	}
	if !isRequest(a.packet) {
		return a, nil // it is not answered from here
	}
	a.local, a.link = destination(in.oob[:oobn])
	if a.local.Is6() && a.local.IsLinkLocalUnicast() {
		a.local = a.local.WithZone(client.Addr().Zone())
	}
	return a, nil
}

// destination reads the address a datagram was sent to and the interface it came
// in by from its control messages.
func destination(oob []byte) (netip.Addr, int) {
	var c4 ipv4.ControlMessage
	if err := c4.Parse(oob); err == nil && c4.Dst != nil {
		addr, _ := netip.AddrFromSlice(c4.Dst)
		return addr.Unmap(), c4.IfIndex
	}
	var c6 ipv6.ControlMessage
	if err := c6.Parse(oob); err == nil && c6.Dst != nil {
		addr, _ := netip.AddrFromSlice(c6.Dst)
		return addr.Unmap(), c6.IfIndex
	}
	return netip.Addr{}, 0
}

// answerable tells a request to one of our addresses from one to all hosts,
// which RFC 1123 section 4.2.3.5 wants ignored, and from one that can have no reply.
func (a arrival) answerable() bool {
	return a.local.IsValid() && !a.local.IsUnspecified() && !a.local.IsMulticast() &&
		a.local != netip.AddrFrom4([4]byte{255, 255, 255, 255}) && a.client.Port() != 0
}

// largestBlock is the block that the client's network carries in one piece: not
// every PXE ROM puts fragments together. The interface that the request came in
// by stands for the path.
func (in *inlet) largestBlock(a arrival) int {
	headers := headersIPv4
	if a.local.Is6() {
		headers = headersIPv6
	}
	return max(in.mtu(a.link)-headers, minBlock)
}

func (in *inlet) mtu(link int) int {
	m, ok := in.mtus[link]
	if !ok || time.Since(m.read) > mtuLife {
		m = mtu{bytes: unknownMTU, read: time.Now()}
		if i, err := net.InterfaceByIndex(link); err == nil && i.MTU > 0 {
			m.bytes = i.MTU
		}
		in.mtus[link] = m
	}
	return m.bytes
}
