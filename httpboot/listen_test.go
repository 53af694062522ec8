package httpboot

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
)

// from is a connection that came from an address.
type from struct {
	net.Conn
	addr netip.Addr
}

func (f from) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.addr, 1024))
}

// door is a limited listener whose connections come from where the test says.
type door struct {
	t      *testing.T
	in     *handedOver
	l      *limited
	now    time.Time
	events []boot.Event
}

func newDoor(t *testing.T) *door {
	d := &door{t: t, in: newHandedOver(&net.TCPAddr{}), now: time.Now()}
	s := &Server{Now: func() time.Time { d.now = d.now.Add(time.Millisecond); return d.now }}
	s.Site.Record = func(e boot.Event) { d.events = append(d.events, e) }
	d.l = newLimited(d.in, s)
	return d
}

// knock lets one in, or returns nil if it is turned away.
func (d *door) knock(addr string) *conn {
	d.t.Helper()
	raw, _ := net.Pipe()
	last, _ := net.Pipe()
	go func() {
		d.in.give(from{raw, netip.MustParseAddr(addr)})
		d.in.give(from{last, netip.MustParseAddr("198.51.100.1")}) // always has a place
	}()
	for {
		got, err := d.l.Accept()
		require.NoError(d.t, err)
		c := got.(*conn)
		if c.Conn.(from).Conn == last {
			require.NoError(d.t, c.Close())
			return nil
		}
		if c.Conn.(from).Conn == raw {
			end, err := d.l.Accept()
			require.NoError(d.t, err)
			require.NoError(d.t, end.Close())
			return c
		}
	}
}

func (d *door) knocks(addr string, n int) []*conn {
	d.t.Helper()
	var all []*conn
	for range n {
		c := d.knock(addr)
		require.NotNil(d.t, c)
		all = append(all, c)
	}
	return all
}

func isOpen(c *conn) bool {
	err := c.SetDeadline(time.Time{}) // a closed pipe says so
	return err == nil
}

func TestT07_IdleStrangersMakeRoom(t *testing.T) {
	d := newDoor(t)
	idle := d.knocks("10.0.0.1", maxConnsPerAddr)
	idle[0].proved.Store(true)
	idle[1].busy.Store(true)
	require.NotNil(t, d.knock("10.0.0.1"), "one has proved itself and does not count")
	require.True(t, isOpen(idle[2]))
	require.NotNil(t, d.knock("10.0.0.1"))
	require.False(t, isOpen(idle[2]), "the oldest that neither has proved itself nor is busy")
	for i, c := range idle {
		require.Equal(t, i != 2, isOpen(c), i)
	}
	require.NotNil(t, d.knock("10.0.0.2"), "others are not concerned")
	require.True(t, isOpen(idle[3]))
	require.Empty(t, d.events)
}

func TestT07_BusyStrangersAreCapped(t *testing.T) {
	d := newDoor(t)
	busy := d.knocks("10.0.0.1", maxConnsPerAddr)
	for _, c := range busy {
		c.busy.Store(true)
	}
	require.Nil(t, d.knock("10.0.0.1"))
	require.Nil(t, d.knock("10.0.0.1"))
	require.Len(t, d.events, 1, "not one by one")
	require.Equal(t, boot.Event{
		Stage: boot.StageLockout, Addr: netip.MustParseAddr("10.0.0.1"), Code: "too-many-connections", Detail: d.events[0].Detail,
	}, d.events[0])
	require.NoError(t, busy[7].Close())
	again := d.knock("10.0.0.1")
	require.NotNil(t, again, "a place that was given back can be taken")
	again.busy.Store(true)
	d.now = d.now.Add(tellEvery)
	require.Nil(t, d.knock("10.0.0.1"))
	require.Contains(t, d.events[1].Detail, "2 connections")
}

// TestT07_NeighboursOfAnAttackerGetIn has one host, and then all of its
// addresses, fill an IPv6 network.
func TestT07_NeighboursOfAnAttackerGetIn(t *testing.T) {
	d := newDoor(t)
	idle := d.knocks("fd00:1::66", maxConnsPerAddr)
	require.NotNil(t, d.knock("fd00:1::9"))
	require.True(t, isOpen(idle[0]), "there is room for both")
	for n := 1; n < maxConnsPerNet/maxConnsPerAddr; n++ {
		d.knocks(fmt.Sprintf("fd00:1::%x", 0x66+n), maxConnsPerAddr)
	}
	require.False(t, isOpen(idle[0]))
	require.Len(t, d.l.byNet[netip.MustParseAddr("fd00:1::")], maxConnsPerNet)
	require.NotNil(t, d.knock("fd00:1::a"))
	for c := range d.l.byNet[netip.MustParseAddr("fd00:1::")] {
		c.proved.Store(true)
	}
	require.Nil(t, d.knock("fd00:1::9"), "all of them are machines")
	require.NotNil(t, d.knock("fd00:2::9"))
}

func TestRackBehindOneAddressGetsIn(t *testing.T) {
	d := newDoor(t)
	for range 3 * maxConnsPerAddr {
		d.knock("10.0.0.1").proved.Store(true)
	}
	require.Empty(t, d.events)
}

// TestWithoutFileDescriptorsClientsWait takes all that the process may have, which
// clients and server share here.
func TestWithoutFileDescriptorsClientsWait(t *testing.T) {
	w := start(t)
	const url = "/rack1/snponly.efi"
	require.Equal(t, http.StatusOK, w.do(w.plainClient(), http.MethodGet, "http://"+w.plain+url).status)
	var was syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was))
	open, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	less := was
	less.Cur = uint64(len(open)) + 33
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &less))
	t.Cleanup(func() { require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was)) })
	var conns []net.Conn
	for {
		c, err := net.Dial("tcp", w.plain)
		if err != nil {
			require.ErrorIs(t, err, syscall.EMFILE)
			break
		}
		conns = append(conns, c)
	}
	require.Eventually(t, func() bool {
		w.logMu.Lock()
		defer w.logMu.Unlock()
		return strings.Contains(w.log.String(), "raise LimitNOFILE")
	}, 5*time.Second, time.Millisecond)
	for _, c := range conns {
		require.NoError(t, c.Close())
	}
	require.Equal(t, http.StatusOK, w.do(w.plainClient(), http.MethodGet, "http://"+w.plain+url).status, "without a restart")
}
