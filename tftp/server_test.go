package tftp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	pin "github.com/pin/tftp/v3"
	"github.com/stretchr/testify/require"
)

const loopback = "127.0.0.1:0"

func pinGet(tb testing.TB, addr netip.AddrPort, name string, set func(*pin.Client)) ([]byte, error) {
	tb.Helper()
	c, err := pin.NewClient(addr.String())
	require.NoError(tb, err)
	c.SetTimeout(2 * time.Second)
	set(c)
	from, err := c.Receive(name, "octet")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err = from.WriteTo(&b)
	return b.Bytes(), err
}

func TestInteropPin(t *testing.T) {
	m := map[string]any{}
	for _, n := range []int{0, 1, 511, 512, 513, 1468, 1 << 20} {
		m[fmt.Sprint(n)] = content(n)
	}
	for _, listen := range []string{loopback, "[::1]:0", "0.0.0.0:0", "[::]:0"} {
		addr, _ := start(t, &Server{Open: files(m)}, listen)
		if addr.Addr().IsUnspecified() {
			addr = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.7"), addr.Port())
		}
		for name, want := range m {
			for _, block := range []int{0, 512, 600, 1468, 65464} {
				got, err := pinGet(t, addr, name, func(c *pin.Client) {
					c.RequestTSize(block%3 == 0)
					if block > 0 {
						c.SetBlockSize(block)
					}
				})
				require.NoError(t, err, "%s, %s bytes, block %d", listen, name, block)
				require.True(t, bytes.Equal(want.([]byte), got), "%s, %s bytes, block %d: got %d", listen, name, block, len(got))
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	addr, _ := start(t, &Server{Open: files(map[string]any{
		"key.efi": &Refusal{Code: 2, Message: "set expose_key_over"},
		"denied":  os.ErrPermission,
		"broken":  errors.New("/srv/secret: i/o error"),
		"nothing": []byte(nil),
	})}, loopback)
	tests := map[string]struct {
		request []byte
		want    string
	}{
		"missing":     {rrq("nowhere", "octet"), "\x00\x05\x00\x01file not found\x00"},
		"denied":      {rrq("denied", "octet"), "\x00\x05\x00\x02access violation\x00"},
		"refusal":     {rrq("key.efi", "octet"), "\x00\x05\x00\x02set expose_key_over\x00"},
		"broken":      {rrq("broken", "octet"), "\x00\x05\x00\x00internal error\x00"},
		"write":       {packet(opWRQ, "a", "octet"), "\x00\x05\x00\x02this server is read-only\x00"},
		"netascii":    {rrq("nothing", "netascii"), "\x00\x05\x00\x04netascii would damage the file: ask in octet mode (tftp: mode binary)\x00"},
		"options cut": {rrq("nothing", "octet", "blksize"), "\x00\x05\x00\x08option list is cut off\x00"},
		"empty file":  {rrq("nothing", "octet"), "\x00\x03\x00\x01"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := dial(t, "", addr)
			c.send(tt.request, addr)
			require.Equal(t, tt.want, string(c.next()))
			require.NotEqual(t, addr, c.peer, "each reply has a port of its own")
		})
	}
	c, err := pin.NewClient(addr.String())
	require.NoError(t, err)
	_, err = c.Send("upload", "octet")
	require.ErrorContains(t, err, "read-only")
}

// TestT01_NamesReachTheHandlerOnly shows that the package gives the traversal
// corpus to the handler as names, and that nothing else is ever opened.
func TestT01_NamesReachTheHandlerOnly(t *testing.T) {
	asked := make(chan string, 1)
	addr, _ := start(t, &Server{
		Open:   files(map[string]any{"good": []byte("good")}),
		OnDone: func(x Transfer) { asked <- x.Name },
	}, loopback)
	for name, want := range map[string]string{
		"../../../../etc/passwd":   "../../../../etc/passwd",
		`..\..\etc\passwd`:         "../../etc/passwd",
		"/etc/passwd":              "etc/passwd",
		"%2e%2e/%2e%2e/etc/passwd": "%2e%2e/%2e%2e/etc/passwd",
		"good/../../etc/passwd":    "good/../../etc/passwd",
		"good\x00/etc/passwd":      "good", // then "/etc/passwd" is the mode
		"/proc/self/environ":       "proc/self/environ",
		"good\n":                   "",
	} {
		c := dial(t, "", addr)
		require.Equal(t, byte(opERROR), c.ask(name, "octet")[1], "%q", name)
		require.Equal(t, want, <-asked)
	}
}

// TestQuirkOVMFSizeProbe replays what OVMF does before each download: it asks
// for the size along with all other options, ends that transfer by an ERROR, and
// asks again, here from the same port.
func TestQuirkOVMFSizeProbe(t *testing.T) {
	done := make(chan Transfer, 2)
	file := content(100_000)
	addr, _ := start(t, &Server{Open: files(map[string]any{"a.efi": file}), OnDone: func(x Transfer) { done <- x }}, loopback)
	c := dial(t, "", addr)
	oack := c.ask("a.efi", "octet", "tsize", "0", "blksize", "1468", "windowsize", "4")
	require.Equal(t, packet(opOACK, "blksize", "1468", "tsize", "100000", "windowsize", "4"), oack)
	c.send(append(packet(opERROR), "\x00\x00User aborted the transfer\x00"...), c.peer)
	probe := <-done
	require.ErrorIs(t, probe.Err, ErrSizeProbe)
	require.Equal(t, int64(100_000), probe.Size)

	var b bytes.Buffer
	require.NoError(t, c.download(&b, 1468, 4, time.Second, "a.efi", "octet", "blksize", "1468", "windowsize", "4"))
	require.Equal(t, sum(file), sum(b.Bytes()))
	x := <-done
	require.NoError(t, x.Err)
	require.Positive(t, x.Duration)
	require.Equal(t, Transfer{
		Name: "a.efi", Client: x.Client, Size: 100_000, Bytes: 100_000,
		Duration: x.Duration, BlockSize: 1468, Window: 4,
	}, x)
}

// TestQuirkOldROMs covers names and options as PXE ROMs spell them.
func TestQuirkOldROMs(t *testing.T) {
	file := content(3000)
	addr, _ := start(t, &Server{Open: files(map[string]any{"boot/a.efi": file})}, loopback)
	for _, name := range []string{"boot/a.efi\xff", `\boot\a.efi`, "/boot/a.efi", `//boot\a.efi` + "\xff\xff"} {
		var b bytes.Buffer
		c := dial(t, "", addr)
		require.NoError(t, c.download(&b, 1456, 1, time.Second, name, "OCTET", "BLKSIZE", "1456", "TSIZE", "0"), "%q", name)
		require.Equal(t, file, b.Bytes())
	}
}

// TestReplyComesFromTheAddressAsked matters on hosts with several addresses:
// firmware drops a reply from another one.
func TestReplyComesFromTheAddressAsked(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", "[::]:0"} {
		addr, _ := start(t, &Server{Open: files(map[string]any{"a": content(10)})}, listen)
		asked := []string{"127.0.0.5", "127.0.0.6"}
		if listen == "[::]:0" {
			asked = append(asked, "::1")
			asked = append(asked, linkLocal(t)...)
		}
		for _, a := range asked {
			to := netip.AddrPortFrom(netip.MustParseAddr(a), addr.Port())
			c := dial(t, "", to)
			require.Equal(t, byte(opDATA), c.ask("a", "octet")[1], a)
			require.Equal(t, to.Addr(), c.peer.Addr())
			c.ack(1)
		}
	}
}

// linkLocal lists this machine's IPv6 link-local addresses, with zones.
func linkLocal(t *testing.T) (list []string) {
	links, err := net.Interfaces()
	require.NoError(t, err)
	for _, l := range links {
		addrs, err := l.Addrs()
		require.NoError(t, err)
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() && l.Flags&net.FlagUp != 0 {
				list = append(list, p.Addr().WithZone(l.Name).String())
			}
		}
	}
	return list
}

func TestT02_OnlyConfiguredNetworks(t *testing.T) {
	addr, _ := start(t, &Server{
		Open:     files(map[string]any{"a": content(10)}),
		Networks: []netip.Prefix{netip.MustParsePrefix("127.0.1.0/24")},
	}, loopback)
	stranger, friend := dial(t, "127.0.2.1", addr), dial(t, "127.0.1.1", addr)
	stranger.send(rrq("a", "octet"), addr)
	// Requests are read in order: when the second is answered, the first was read.
	require.Equal(t, byte(opDATA), friend.ask("a", "octet")[1])
	friend.ack(1)
	_, err := stranger.recv(100 * time.Millisecond)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

func TestPrivateNetworks(t *testing.T) {
	v := (&Server{}).service()
	for a, want := range map[string]bool{
		"127.3.2.1": true, "10.1.2.3": true, "172.31.0.1": true, "192.168.1.1": true, "169.254.1.1": true,
		"::1": true, "fe80::1%eth0": true, "fd12::1": true,
		"8.8.8.8": false, "172.32.0.1": false, "100.64.0.1": false, "2001:db8::1": false, "0.0.0.0": false,
	} {
		require.Equal(t, want, v.allowed(netip.MustParseAddr(a)), a)
	}
}

// TestT02_SilentPackets: what is not a request gets no answer at all.
func TestT02_SilentPackets(t *testing.T) {
	addr, _ := start(t, &Server{Open: files(nil)}, loopback)
	c := dial(t, "", addr)
	for _, p := range [][]byte{{}, {0}, ackPacket(1), packet(opERROR, "xx"), packet(opDATA, "xx"), packet(opOACK, "a", "1"), []byte("GET / HTTP/1.1\r\n\r\n")} {
		c.send(p, addr)
	}
	require.Equal(t, "\x00\x05\x00\x01file not found\x00", string(c.ask("last", "octet")))
	_, err := c.recv(100 * time.Millisecond)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

// TestT02_RepeatedRequest: a client whose first answer was lost hears it again
// when it asks again, twice, and then finds a fresh transfer. A copy that the
// network has made draws nothing, nor does a request ever draw more than one.
func TestT02_RepeatedRequest(t *testing.T) {
	for _, single := range []bool{false, true} {
		done := make(chan Transfer, 1)
		file := content(600)
		addr, _ := start(t, &Server{Open: files(map[string]any{"a": file}), SinglePort: single, OnDone: func(x Transfer) { done <- x }}, loopback)
		c := dial(t, "", addr)
		nothing := func() {
			_, err := c.recv(minRepeat + 10*time.Millisecond)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		}
		c.ask("a", "octet")
		first := c.peer
		c.send(rrq("a", "octet"), addr)
		nothing()
		for range retriesUnanswered {
			require.Equal(t, uint16(1), blockOf(c.ask("a", "octet")))
			require.Equal(t, first, c.peer)
			nothing()
		}
		c.send(rrq("a", "octet"), addr)
		require.ErrorIs(t, (<-done).Err, ErrNoAnswer)
		nothing()
		require.Equal(t, uint16(1), blockOf(c.ask("a", "octet")))
		require.Equal(t, single, first == c.peer)
		c.ack(1)
		require.Equal(t, file[512:], bytes.Clone(c.next()[headerSize:]))
		c.ack(2)
		require.NoError(t, (<-done).Err)
	}
}

// TestT02_RackIsNeverRefused boots a rack of one /24 at once, as its firmware
// does it, with the defaults.
func TestT02_RackIsNeverRefused(t *testing.T) {
	var log bytes.Buffer
	file := content(200_000)
	addr, stop := start(t, &Server{Open: files(map[string]any{"snponly.efi": file}), Log: slog.New(slog.NewJSONHandler(&log, nil))}, loopback)
	results := make(chan error)
	for i := range 40 {
		go func() { results <- bootByTFTP(t, fmt.Sprintf("127.7.7.%d", i+1), addr, file) }()
	}
	for range 40 {
		require.NoError(t, <-results)
	}
	<-stop()
	require.NotContains(t, log.String(), "dropped")
}

func bootByTFTP(t *testing.T, from string, addr netip.AddrPort, want []byte) error {
	c := dial(t, from, addr)
	c.send(rrq("snponly.efi", "octet", "tsize", "0", "blksize", "1468", "windowsize", "4"), c.server)
	if _, err := c.recv(3 * time.Second); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	c.send(packet(opERROR, "\x00\x00aborted"), c.peer)
	var b bytes.Buffer
	if err := download(t, from, addr, &b, 1468, 4, 3*time.Second, "snponly.efi", "octet", "blksize", "1468", "windowsize", "4"); err != nil {
		return err
	}
	if !bytes.Equal(b.Bytes(), want) {
		return errors.New("other bytes")
	}
	for _, name := range []string{"set/autoexec.ipxe", "/autoexec.ipxe"} {
		if err := download(t, from, addr, io.Discard, 1432, 1, 3*time.Second, name, "octet", "blksize", "1432", "tsize", "0"); err == nil || !strings.Contains(err.Error(), "not found") {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func TestStopLetsTransfersEnd(t *testing.T) {
	file := content(5000)
	addr, stop := start(t, &Server{Open: files(map[string]any{"a": file}), Limits: Limits{Grace: 10 * time.Second}}, loopback)
	c := dial(t, "", addr)
	got := bytes.Clone(c.ask("a", "octet")[4:])
	c.ack(1)
	stop()
	for n := uint16(2); n <= 10; n++ {
		got = append(got, c.next()[4:]...)
		c.ack(n)
	}
	require.Equal(t, file, got)
}

func TestStopEndsTransfersAfterGrace(t *testing.T) {
	done := make(chan Transfer, 1)
	addr, stop := start(t, &Server{
		Open: files(map[string]any{"a": content(5000)}), OnDone: func(x Transfer) { done <- x },
		Limits: Limits{Grace: 20 * time.Millisecond},
	}, loopback)
	c := dial(t, "", addr)
	c.ask("a", "octet")
	c.ack(1)
	c.next()
	stop()
	requireError(t, c, "server is stopping")
	x := <-done
	require.ErrorIs(t, x.Err, errStopping)
	require.Equal(t, int64(512), x.Bytes)
}

func TestT04_Deadline(t *testing.T) {
	done := make(chan Transfer, 1)
	addr, _ := start(t, &Server{
		Open: files(map[string]any{"a": content(5000)}), OnDone: func(x Transfer) { done <- x },
		Limits: Limits{Duration: 200 * time.Millisecond},
	}, loopback)
	c := dial(t, "", addr)
	c.ask("a", "octet", "timeout", "255")
	c.ack(0)
	c.next()
	requireError(t, c, "transfer took too long")
	x := <-done
	require.ErrorIs(t, x.Err, errDeadline)
	require.Less(t, x.Duration, 4*time.Second, "it does not wait for the next repetition")
}

// requireError skips blocks that are repeated while the test waits.
func requireError(t *testing.T, c *client, text string) {
	t.Helper()
	p := c.next()
	for p[1] == opDATA {
		p = c.next()
	}
	require.Equal(t, "\x00\x05\x00\x00"+text+"\x00", string(p))
}

// TestT04_SlowHandlerIsCancelled: a handler that hangs is told when its place is needed.
func TestT04_SlowHandlerIsCancelled(t *testing.T) {
	done := make(chan Transfer, 2)
	opened := make(chan string, 2)
	hang := func(ctx context.Context, name string, _ netip.AddrPort) (*io.SectionReader, error) {
		opened <- name
		<-ctx.Done()
		return nil, ctx.Err()
	}
	addr, stop := start(t, &Server{
		Open: hang, OnDone: func(x Transfer) { done <- x },
		Limits: Limits{Unanswered: 1, Grace: time.Millisecond},
	}, loopback)
	c := dial(t, "", addr)
	c.send(rrq("first", "octet"), addr)
	require.Equal(t, "first", <-opened)
	c.send(rrq("second", "octet"), addr)
	require.ErrorIs(t, (<-done).Err, errEvicted)
	require.Equal(t, "second", <-opened)
	stop()
	require.ErrorIs(t, (<-done).Err, errStopping)
	_, err := c.recv(50 * time.Millisecond)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "neither is told anything")
}

func TestObserversAndLog(t *testing.T) {
	var log bytes.Buffer
	events := make(chan string, 20)
	done := make(chan struct{}, 1)
	addr, stop := start(t, &Server{
		Open:      files(map[string]any{"a": content(10), "broken": errors.New("disk on fire")}),
		Log:       slog.New(slog.NewJSONHandler(&log, nil)),
		OnRequest: func(x Transfer) { events <- "request " + x.Name },
		OnDone: func(x Transfer) {
			events <- fmt.Sprintf("done %s %d/%d %v", x.Name, x.Bytes, x.Size, x.Err)
			done <- struct{}{}
		},
	}, loopback)
	c := dial(t, "", addr)
	for _, name := range []string{"a", "missing", "broken"} {
		require.NoError(t, ignoreRefusal(download(t, "", addr, io.Discard, 512, 1, time.Second, name, "octet")))
		<-done
	}
	c.ask("a", "octet", "tsize", "0")
	c.send(packet(opERROR, "\x00\x00bye"), c.peer)
	<-done
	<-stop()
	close(events)
	var told []string
	for e := range events {
		told = append(told, e)
	}
	require.Equal(t, []string{
		"request a", "done a 10/10 <nil>",
		"request missing", `done missing 0/0 look up "missing": file does not exist`,
		"request broken", "done broken 0/0 disk on fire",
		"request a", `done a 0/10 client wanted the size only: client ended the transfer with tftp error 0 "bye"`,
	}, told)
	requireRecords(t, &log, "INFO tftp transfer done a", "INFO tftp transfer failed missing", "ERROR tftp transfer failed broken")
}

func ignoreRefusal(err error) error {
	if err != nil && strings.HasPrefix(err.Error(), "server: error") {
		return nil
	}
	return err
}

func requireRecords(t *testing.T, log io.Reader, want ...string) {
	t.Helper()
	var got []string
	for d := json.NewDecoder(log); d.More(); {
		var r struct{ Level, Msg, Stage, Image, Addr string }
		require.NoError(t, d.Decode(&r))
		require.Equal(t, "tftp", r.Stage)
		require.NotEmpty(t, r.Addr)
		got = append(got, r.Level+" "+r.Msg+" "+r.Image)
	}
	require.Equal(t, want, got)
}

func TestServeRefuses(t *testing.T) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	require.ErrorContains(t, (&Server{}).Serve(t.Context(), conn), "set Open")
	require.ErrorContains(t, (&Server{Open: files(nil)}).Serve(t.Context(), conn), "use of closed network connection")
}

// TestServeReportsADeadSocket: only the end of the context is a clean stop.
func TestServeReportsADeadSocket(t *testing.T) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	failed := make(chan error)
	go func() { failed <- (&Server{Open: files(nil)}).Serve(t.Context(), conn) }()
	c := dial(t, "", conn.LocalAddr().(*net.UDPAddr).AddrPort())
	c.ask("x", "octet")
	require.NoError(t, conn.Close())
	require.ErrorIs(t, <-failed, net.ErrClosed)
}
