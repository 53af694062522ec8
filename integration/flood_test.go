package integration

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/rig"
)

// The network that the flood comes from, of which the lower half is configured,
// and one beside it with a real machine.
const (
	floodNetwork = "10.99.0.0/17"
	floodServer  = "10.99.0.1"
	quietNetwork = "192.0.2.0/24"
	quietClient  = "192.0.2.7"
)

// What bootd lets out by default to those who don't answer (tftp.total_replies).
const (
	repliesPerSecond = 2048
	repliesSaved     = 8 * repliesPerSecond
	mostReplies      = 3 // datagrams for a request that nobody answers
)

// TestT02_FloodOfABootd forges requests from random addresses, half of them in a
// network that is answered, and counts what comes back, while a real machine
// downloads. NESTBOOT_FLOOD is requests per second and seconds
// (make e2e-tftp-flood: 100000x10).
func TestT02_FloodOfABootd(t *testing.T) {
	perSecond, seconds := 20_000, 1
	if asked := os.Getenv("NESTBOOT_FLOOD"); asked != "" {
		_, err := fmt.Sscanf(asked, "%dx%d", &perSecond, &seconds)
		require.NoError(t, err)
	}
	s, card := floodRig(t)
	addr := floodServer + ":6969"
	want := fetch(t, addr) // and what is made at the first request is made

	before := resident(t, s)
	stop := make(chan struct{})
	var beside sync.WaitGroup
	replies := make(map[netip.AddrPort]int)
	beside.Go(func() { countReplies(card, replies) })
	downloads := 0
	beside.Go(func() {
		for ; ; downloads++ {
			select {
			case <-stop:
				return
			default:
				if got := fetch(t, addr); len(got) != len(want) {
					t.Errorf("the real machine got %d bytes of %d", len(got), len(want))
				}
			}
		}
	})
	var most atomic.Int64
	beside.Go(func() { watch(t, s, stop, &most) })
	took := forge(t, card, netip.MustParseAddrPort(addr), perSecond, seconds)
	close(stop)
	require.NoError(t, card.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	beside.Wait()

	sent := 0
	network := netip.MustParsePrefix(floodNetwork)
	for to, n := range replies {
		sent += n
		require.True(t, network.Contains(to.Addr()), "%s is not to be answered", to)
		require.LessOrEqual(t, n, mostReplies, "datagrams to %s", to)
	}
	budget := repliesSaved + int(took.Seconds()*repliesPerSecond)
	t.Logf("%d requests in %.1f s, %.0f a second: %d datagrams to %d addresses, budget %d; memory %d MiB before, %d at most; a real machine downloaded %d times",
		perSecond*seconds, took.Seconds(), float64(perSecond*seconds)/took.Seconds(), sent, len(replies), budget, before>>20, most.Load()>>20, downloads)
	require.Positive(t, sent, "the flood does not arrive")
	require.LessOrEqual(t, sent, budget)
	require.Positive(t, downloads)
	require.Less(t, most.Load()-before, int64(mostMemory), "memory grows")
}

// mostMemory is what the places for transfers may take, 4096 of 8 KiB, with as
// much again that waits for the garbage collector, three times over: a bound
// however long the flood.
const mostMemory = 192 << 20

// floodRig starts a bootd in a network that this test can forge everything in.
func floodRig(t *testing.T) (*rig.LoopbackServer, *os.File) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts the whole program")
	}
	m := lab.Need(t)
	if errLab != nil && os.Getenv("CI") != "true" {
		t.Skip(errLab)
	}
	require.NoError(t, errLab)
	require.NoError(t, lab.Loopback(t.Context()))
	card := tunnel(t, "flood")
	for _, args := range []string{
		"addr add " + floodServer + "/16 dev flood", "link set flood up", "addr add " + quietClient + "/32 dev lo",
	} {
		out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(args)...).CombinedOutput()
		require.NoError(t, err, "ip %s: %s", args, out)
	}
	dir, bin := t.TempDir(), programs(t)
	s, err := rig.Loopback{
		Dir: dir, Bootd: filepath.Join(bin, "bootd"), Nestctl: filepath.Join(bin, "nestctl"), Base: m.Debs()[1],
		Image: 64 << 10, TFTP: floodServer + ":6969", Config: fmt.Sprintf("tftp: {networks: [%s, %s]}", floodNetwork, quietNetwork),
	}.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(s.Close)
	_, err = s.Nestctl(t.Context(), "artifact", "create", "flood", "--serve", "tftp")
	require.NoError(t, err)
	return s, card
}

// tunnel is a network card whose cable is the file.
func tunnel(t *testing.T, name string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	r, err := unix.NewIfreq(name)
	require.NoError(t, err)
	r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	require.NoError(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, r))
	file := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { _ = file.Close() })
	return file
}

// fetch downloads by TFTP as a machine does whose address no flood names.
func fetch(t *testing.T, server string) []byte {
	get := exec.CommandContext(t.Context(), "curl", "-sS", "--interface", quietClient, "--max-time", "20", "--tftp-blksize", "1468", "tftp://"+server+"/flood.efi")
	got, err := get.Output()
	if err != nil {
		t.Errorf("the real machine: %v", err)
	}
	return got
}

// forge sends at a steady pace and returns how long it took.
func forge(t *testing.T, card *os.File, to netip.AddrPort, perSecond, seconds int) time.Duration {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	began := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for sent := 0; sent < perSecond*seconds; {
		<-tick.C
		due := min(int(time.Since(began).Seconds()*float64(perSecond)), perSecond*seconds)
		for ; sent < due; sent++ {
			from := netip.AddrFrom4([4]byte{10, 99, byte(random.Uint32()), byte(2 + random.Uint32()%250)})
			_, err := card.Write(datagram(netip.AddrPortFrom(from, uint16(1024+random.Uint32()%60000)), to, "\x00\x01flood.efi\x00octet\x00windowsize\x0064\x00"))
			require.NoError(t, err)
		}
	}
	return time.Since(began)
}

const ipv4Header, udpHeader = 20, 8

// datagram is an IPv4 packet as a network card gets it; without a UDP checksum,
// as RFC 768 allows.
func datagram(from, to netip.AddrPort, payload string) []byte {
	p := make([]byte, ipv4Header+udpHeader, ipv4Header+udpHeader+len(payload))
	p[0], p[8], p[9] = 4<<4|ipv4Header/4, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(p[2:], uint16(cap(p)))
	copy(p[12:], from.Addr().AsSlice())
	copy(p[16:], to.Addr().AsSlice())
	sum := uint32(0)
	for i := 0; i < ipv4Header; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum+sum>>16))
	udp := p[ipv4Header:]
	binary.BigEndian.PutUint16(udp, from.Port())
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(udpHeader+len(payload)))
	return append(p, payload...)
}

// countReplies reads what leaves by the card, until its deadline.
func countReplies(card *os.File, replies map[netip.AddrPort]int) {
	for p := make([]byte, 2048); ; {
		n, err := card.Read(p)
		if err != nil {
			return
		}
		if n >= ipv4Header+udpHeader && p[0]>>4 == 4 && p[9] == unix.IPPROTO_UDP {
			to, _ := netip.AddrFromSlice(p[16:20])
			replies[netip.AddrPortFrom(to, binary.BigEndian.Uint16(p[ipv4Header+2:]))]++
		}
	}
}

// watch notes the most memory that bootd has had.
func watch(t *testing.T, s *rig.LoopbackServer, stop chan struct{}, most *atomic.Int64) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		most.Store(max(most.Load(), resident(t, s)))
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
}

// resident is the resident set in bytes (proc_pid_statm(5)).
func resident(t *testing.T, s *rig.LoopbackServer) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.Proc.Pid()))
	if err != nil {
		t.Error(err)
		return 0
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Error(err)
	}
	return pages * int64(os.Getpagesize())
}
