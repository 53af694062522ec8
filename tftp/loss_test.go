package tftp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// goBackN is how many DATA packets a block takes when each is lost with
// probability p and a window starts over behind the first that is: a window of w
// packets moves the transfer by the blocks before the first loss.
func goBackN(w int, p float64) float64 {
	if p == 0 {
		return 1
	}
	return float64(w) * p / ((1 - p) * (1 - math.Pow(1-p, float64(w))))
}

// TestT06_PacketsUnderLoss counts what is sent while DATA is lost and ACKs are
// not: lock-step at most 1.4 times the blocks, windows within 15 % of the model
// that docs/performance.md states.
func TestT06_PacketsUnderLoss(t *testing.T) {
	for _, window := range []int{1, 4, 16, 64} {
		for _, p := range []float64{0.01, 0.05, 0.10, 0.20} {
			t.Run(fmt.Sprintf("window %d, loss %.2f", window, p), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const blocks = 20_000
					toClient := &lossy{to: make(chan []byte, 256), drop: p, random: pseudorandom(uint64(window))}
					toServer := &lossy{to: make(chan []byte, 256)}
					file := section(content(blocks*64 - 1))
					tm := negotiate(map[string]string{"blksize": "64", "windowsize": strconv.Itoa(window)}, file.Size(), 1468)
					s := newLoop(&link{toServer.to, toClient}, file, tm, new(bufferPool), func() {})
					ctx, cancel := context.WithCancel(t.Context())
					got := make(chan [32]byte)
					go func() { got <- receive(ctx, toClient.to, toServer, 64, window, time.Second) }()
					require.NoError(t, s.run(t.Context()))
					cancel()
					want := sha256.New()
					_, _ = io.Copy(want, file)
					require.Equal(t, [32]byte(want.Sum(nil)), <-got)
					per := float64(s.datagrams) / blocks
					t.Logf("%.3f packets per block, model %.3f", per, goBackN(window, p))
					require.LessOrEqual(t, per, 1.15*goBackN(window, p))
					if window == 1 {
						require.LessOrEqual(t, per, 1.4)
					}
				})
			})
		}
	}
}

// TestT06_TimeUnderLoss downloads 1.1 MB through a network that loses a fifth of
// what passes in either direction, doubles and reorders, by clients that repeat
// themselves as quickly as iPXE and as slowly as old ROMs. Nobody gives up, and
// the server is not patient for longer than it has reason to.
func TestT06_TimeUnderLoss(t *testing.T) {
	const transfers, blocks = 20, 750
	tests := []struct {
		patience time.Duration
		window   int
		most     time.Duration // on the average
	}{
		{250 * time.Millisecond, 1, 40 * time.Second},
		{250 * time.Millisecond, 4, 10 * time.Second},
		{250 * time.Millisecond, 16, 4 * time.Second},
		{4 * time.Second, 1, 80 * time.Second},
		{4 * time.Second, 4, 10 * time.Second},
		{4 * time.Second, 16, 4 * time.Second},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("client repeats after %s, window %d", tt.patience, tt.window), func(t *testing.T) {
			var all, worst time.Duration
			for seed := range uint64(transfers) {
				synctest.Test(t, func(t *testing.T) {
					took := timeUnderLoss(t, seed, blocks, tt.window, tt.patience)
					all, worst = all+took, max(worst, took)
				})
			}
			t.Logf("mean %s, worst %s", all/transfers, worst)
			require.Less(t, all/transfers, tt.most)
		})
	}
}

func timeUnderLoss(t *testing.T, seed uint64, blocks, window int, patience time.Duration) time.Duration {
	direction := func(seed uint64) *lossy {
		return &lossy{to: make(chan []byte, 256), drop: 0.2, double: 0.1, reorder: 0.05, random: pseudorandom(seed)}
	}
	toClient, toServer := direction(3+2*seed), direction(4+2*seed)
	file := section(content(blocks*64 - 1))
	tm := negotiate(map[string]string{"blksize": "64", "windowsize": strconv.Itoa(window)}, file.Size(), 1468)
	s := newLoop(&link{toServer.to, toClient}, file, tm, new(bufferPool), func() {})
	s.heard(time.Now()) // what comes before is not the matter here
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan [32]byte)
	go func() { got <- receive(ctx, toClient.to, toServer, 64, window, patience) }()
	began := time.Now()
	err := s.run(t.Context())
	took := time.Since(began)
	cancel()
	<-got
	require.NoError(t, err)
	return took
}

// relay stands between clients and a server, as a network that loses, doubles
// and reorders datagrams in both directions. Each client has a socket of its own
// towards the server, and the first answer to a request decides the server's
// port.
type relay struct {
	t                     *testing.T
	conn                  *net.UDPConn
	server                netip.AddrPort
	drop, double, reorder float64
	mu                    sync.Mutex
	random                func() float64 // guarded by mu
	flows                 map[netip.AddrPort]*flow
	done                  sync.WaitGroup
}

type flow struct {
	conn *net.UDPConn
	peer netip.AddrPort // guarded by the relay's mu
}

func startRelay(t *testing.T, server netip.AddrPort, drop, double, reorder float64) *relay {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	r := &relay{
		t: t, conn: conn, server: server, drop: drop, double: double, reorder: reorder,
		random: pseudorandom(7), flows: map[netip.AddrPort]*flow{},
	}
	r.done.Go(r.forward)
	t.Cleanup(func() {
		_ = conn.Close()
		r.mu.Lock()
		for _, f := range r.flows {
			_ = f.conn.Close()
		}
		r.mu.Unlock()
		r.done.Wait()
	})
	return r
}

func (r *relay) addr() netip.AddrPort { return r.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

func (r *relay) forward() {
	var held func()
	for b := make([]byte, 2048); ; {
		n, client, err := r.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		f := r.flow(client)
		r.mu.Lock()
		to := f.peer
		if n > 1 && b[1] == opRRQ { // who asks has heard nothing yet
			to, f.peer = r.server, r.server
		}
		r.mu.Unlock()
		p := bytes.Clone(b[:n])
		held = r.pass(held, func() { _, _ = f.conn.WriteToUDPAddrPort(p, to) })
	}
}

func (r *relay) flow(client netip.AddrPort) *flow {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.flows[client]
	if f == nil {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(r.t, err)
		f = &flow{conn: conn, peer: r.server}
		r.flows[client] = f
		r.done.Go(func() { r.back(f, client) })
	}
	return f
}

func (r *relay) back(f *flow, client netip.AddrPort) {
	var held func()
	for b := make([]byte, 2048); ; {
		n, from, err := f.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		r.mu.Lock()
		if f.peer == r.server {
			f.peer = from // the first answer
		}
		right := f.peer == from
		r.mu.Unlock()
		if !right { // to a copy of the request
			_, _ = f.conn.WriteToUDPAddrPort(packet(opERROR, "\x00\x05unknown"), from)
			continue
		}
		p := bytes.Clone(b[:n])
		held = r.pass(held, func() { _, _ = r.conn.WriteToUDPAddrPort(p, client) })
	}
}

// pass sends, or does not, or twice, or later than the next one.
func (r *relay) pass(held, send func()) func() {
	r.mu.Lock()
	lost, later, twice := r.random() < r.drop, r.random() < r.reorder, r.random() < r.double
	r.mu.Unlock()
	switch {
	case lost:
		return held
	case later && held == nil:
		return send
	}
	send()
	if twice {
		send()
	}
	if held != nil {
		held()
	}
	return nil
}

// TestT06_BadNetwork downloads over sockets through a relay. How many times is
// said by NESTBOOT_TFTP_TRANSFERS (make e2e-tftp-loss: 1000).
func TestT06_BadNetwork(t *testing.T) {
	transfers, err := strconv.Atoi(os.Getenv("NESTBOOT_TFTP_TRANSFERS"))
	if err != nil {
		t.Skip("takes minutes: make e2e-tftp-loss")
	}
	const parallel = 50
	file := content(64 << 10)
	for _, single := range []bool{false, true} {
		for _, p := range []float64{0.01, 0.05, 0.10, 0.20} {
			t.Run(fmt.Sprintf("loss %.2f, single port %v", p, single), func(t *testing.T) {
				t.Parallel()
				addr, _ := start(t, &Server{Open: files(map[string]any{"a": file}), SinglePort: single, Limits: Limits{PerAddress: 1000}}, loopback)
				r := startRelay(t, addr, p, p/2, p/4)
				work, failed := make(chan int), make(chan error, transfers)
				var clients sync.WaitGroup
				for range parallel {
					clients.Go(func() {
						for i := range work {
							failed <- downloadBadly(t, r.addr(), file, []int{1, 4, 16, 64}[i%4])
						}
					})
				}
				for i := range transfers {
					work <- i
				}
				close(work)
				clients.Wait()
				for range transfers {
					require.NoError(t, <-failed)
				}
			})
		}
	}
}

// downloadBadly starts over when all copies of a request or of its answer were
// lost, as firmware does.
func downloadBadly(t *testing.T, addr netip.AddrPort, want []byte, window int) error {
	var err error
	for range 5 {
		var b bytes.Buffer
		err = download(t, "127.0.0.1", addr, &b, 1024, window, 250*time.Millisecond, "a", "octet", "blksize", "1024", "windowsize", strconv.Itoa(window))
		if err == nil && sum(b.Bytes()) != sum(want) {
			return fmt.Errorf("%d other bytes", b.Len())
		}
		if err == nil {
			return nil
		}
	}
	return err
}
