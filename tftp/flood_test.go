package tftp

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/ipv4"
)

// forger sends from any address of 127.0.0.0/8 and never reads.
type forger struct {
	conn *ipv4.PacketConn
	to   *net.UDPAddr
}

func newForger(t *testing.T, to netip.AddrPort) *forger {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &forger{conn: ipv4.NewPacketConn(conn), to: net.UDPAddrFromAddrPort(to)}
}

func (f *forger) send(from netip.Addr, p []byte) error {
	_, err := f.conn.WriteTo(p, &ipv4.ControlMessage{Src: from.AsSlice()}, f.to)
	return err
}

// usage is what the process holds.
type usage struct{ files, goroutines, kilobytes int }

func measure(t *testing.T) usage {
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	// Not the resident set: the race detector's own memory is part of that.
	m := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(m)
	return usage{len(fds), runtime.NumGoroutine(), int(m[0].Value.Uint64()-m[1].Value.Uint64()) >> 10}
}

// TestT04_Flood sends requests from 10,000 forged addresses while a real machine
// of another network downloads, again and again.
func TestT04_Flood(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("counts by /proc, forges by IP_PKTINFO")
	}
	requests, perTick := 50_000, 50
	if testing.Short() {
		requests = 20_000
	}
	file := content(100_000)
	addr, _ := start(t, &Server{Open: files(map[string]any{"a": file})}, loopback)
	before := measure(t)

	stop, downloads := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for b := new(bytes.Buffer); ; n++ {
			select {
			case <-stop:
				downloads <- n
				return
			default:
			}
			b.Reset()
			if err := download(t, "127.200.0.1", addr, b, 1468, 4, 200*time.Millisecond, "a", "octet", "blksize", "1468", "windowsize", "4"); err != nil || !bytes.Equal(b.Bytes(), file) {
				t.Errorf("real client: %v, %d bytes", err, b.Len())
			}
		}
	}()
	most := flood(t, newForger(t, addr), requests, perTick)
	close(stop)
	n := <-downloads
	t.Logf("%d requests; a real client downloaded %d times; before %+v, most %+v", requests, n, before, most)
	require.Positive(t, n)
	require.LessOrEqual(t, most.files-before.files, 4096+20)
	require.LessOrEqual(t, most.goroutines-before.goroutines, 2*4096)
	require.LessOrEqual(t, most.kilobytes-before.kilobytes, 64<<10)
}

// flood sends at a steady pace, so that it is the server and not the kernel's
// queue that has to refuse, and returns the most that the process has held.
func flood(t *testing.T, f *forger, requests, perTick int) (most usage) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := 0; i < requests; i++ {
		if i%perTick == 0 {
			<-tick.C
		}
		n := i % 10_000
		from := netip.AddrFrom4([4]byte{127, 100, byte(n / 250), byte(n%250 + 1)})
		require.NoError(t, f.send(from, rrq("a", "octet", "blksize", "1468", "windowsize", "64", "x", strconv.Itoa(i))))
		if i%(10*perTick) == 0 {
			u := measure(t)
			most = usage{max(most.files, u.files), max(most.goroutines, u.goroutines), max(most.kilobytes, u.kilobytes)}
		}
	}
	return most
}

// TestT02_FloodReplies counts what a flood draws from the server: the budget of
// its network, however many addresses and windows it names.
func TestT02_FloodReplies(t *testing.T) {
	addr, stop := start(t, &Server{
		Open:   files(map[string]any{"a": content(1e6)}),
		Limits: Limits{NetworkReplies: 6, Grace: time.Millisecond},
	}, loopback)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{})
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	f := &forger{ipv4.NewPacketConn(conn), net.UDPAddrFromAddrPort(addr)}
	for i := range 250 {
		require.NoError(t, f.send(netip.AddrFrom4([4]byte{127, 50, 1, byte(i)}), rrq("a", "octet", "windowsize", "64")))
	}
	c := dial(t, "", addr) // whose answer shows that all before it were read
	c.ask("missing", "octet")
	<-stop()
	replies := 0
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	for b := make([]byte, 2000); ; replies++ {
		n, _, err := conn.ReadFromUDPAddrPort(b)
		if err != nil {
			break
		}
		require.Equal(t, packet(opOACK, "windowsize", "64"), b[:n])
	}
	require.InDelta(t, 6*burstSeconds/repliesPerRequest, replies, 4)
}

// TestT05_ForgedPackets throws ACKs, ERRORs and rubbish from foreign ports at a
// running transfer. Each stranger hears "unknown transfer id", up to a bound, and
// the transfer goes on.
func TestT05_ForgedPackets(t *testing.T) {
	const blocks, perBlock = 500, 200 // 100,000 in all
	file := content(blocks*512 - 1)
	done := make(chan Transfer, 1)
	addr, _ := start(t, &Server{Open: files(map[string]any{"a": file}), OnDone: func(x Transfer) { done <- x }}, loopback)
	victim := dial(t, "127.0.0.2", addr)
	samePort := victim.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	liars := []*client{dial(t, "127.0.0.2", addr), dial(t, "127.0.0.3", addr), {tb: t, conn: listen(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.4"), samePort))}}

	got := bytes.Clone(victim.ask("a", "octet")[4:])
	for n := 1; n < blocks; n++ {
		transfer := victim.peer
		for i := range perBlock {
			lie := ackPacket(uint16(n + i%3 - 1))
			switch i % 4 {
			case 1:
				lie = append(packet(opERROR), "\x00\x00die\x00"...)
			case 2:
				lie = []byte{byte(i)}
			}
			liars[i%len(liars)].send(lie, transfer)
		}
		victim.ack(uint16(n))
		p := victim.next()
		for binary.BigEndian.Uint16(p[2:]) != uint16(n+1) {
			p = victim.next() // repeated while the server was reading lies
		}
		got = append(got, p[4:]...)
	}
	victim.ack(blocks)
	x := <-done
	require.NoError(t, x.Err)
	require.Equal(t, sum(file), sum(got))

	replies := 0
	for _, l := range liars {
		for p, err := l.recv(50 * time.Millisecond); err == nil; p, err = l.recv(50 * time.Millisecond) {
			require.Equal(t, "\x00\x05\x00\x05unknown transfer id\x00", string(p))
			replies++
		}
	}
	require.Equal(t, maxStrayReplies, replies)
}

func listen(t *testing.T, a netip.AddrPort) *net.UDPConn {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
