package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/nestboot/nestboot/integration/rig"
)

// job is what the load generator, a process of its own, is asked to do.
type job struct {
	Server  string
	Clients int
	Block   int
	Window  int
	File    string
	Size    int64
	For     time.Duration // how long clients start over; 0: each loads the file once
	Hold    bool          // until all clients have their first block
}

// tally is what came of it.
type tally struct {
	Bytes     int64
	Transfers int
	Failed    int
	Repeats   int // packets sent again, since nothing came
	Took      time.Duration
	CPU       time.Duration // of the generator
	Error     string        // of the first that failed
}

func (t tally) megabytes() float64 { return float64(t.Bytes) / 1e6 / t.Took.Seconds() }

// load runs the generator on the clients' core.
func load(ctx context.Context, j job) (tally, error) {
	self, err := os.Executable()
	if err != nil {
		return tally{}, err
	}
	asked, err := json.Marshal(j)
	if err != nil {
		return tally{}, err
	}
	cmd := rig.OnCore(clientCore, exec.CommandContext(ctx, self))
	cmd.Env = append(os.Environ(), generator+"="+string(asked))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return tally{}, fmt.Errorf("generate load: %w", err)
	}
	var t tally
	return t, json.Unmarshal(out, &t)
}

// generator is the environment variable that makes the program one.
const generator = "NESTBOOT_BENCH_LOAD"

func generate(asked string, out io.Writer) error {
	var j job
	if err := json.Unmarshal([]byte(asked), &j); err != nil {
		return err
	}
	f, err := newFleet(j)
	if err != nil {
		return err
	}
	t, err := f.run()
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(t)
}

const (
	batch    = 256
	patience = time.Second // without an answer
	maxTries = 15
	scanning = 200 * time.Millisecond
	queue    = 64 << 20
)

// fleet is many clients on one socket: each has an address of its own in
// 127.0.0.0/8, by which the kernel says whom a datagram is for. Of a block only
// the header is copied out of the kernel.
type fleet struct {
	job     job
	conn    *net.UDPConn
	packets *ipv4.PacketConn
	server  *net.UDPAddr
	clients []client
	in, out []ipv4.Message
	until   time.Time
	active  int
	held    int
	tally   tally
}

func newFleet(j job) (*fleet, error) {
	server, err := net.ResolveUDPAddr("udp4", j.Server)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var forced error
	if err := raw.Control(func(fd uintptr) {
		forced = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queue)
	}); err != nil || forced != nil {
		return nil, errors.Join(err, forced)
	}
	f := &fleet{job: j, conn: conn, packets: ipv4.NewPacketConn(conn), server: server, clients: make([]client, j.Clients)}
	if err := f.packets.SetControlMessage(ipv4.FlagDst, true); err != nil {
		return nil, err
	}
	f.in, f.out = make([]ipv4.Message, batch), make([]ipv4.Message, 0, batch)
	for i := range f.in {
		f.in[i] = ipv4.Message{Buffers: [][]byte{make([]byte, 512)}, OOB: make([]byte, 64)}
	}
	for i := range f.clients {
		f.clients[i] = newClient(f, i)
	}
	return f, nil
}

func (f *fleet) run() (tally, error) {
	began := time.Now()
	f.until = began.Add(f.job.For)
	for i := range f.clients {
		f.active++
		f.clients[i].start(began)
	}
	scan := began
	for f.active > 0 {
		if err := f.flush(); err != nil {
			return f.tally, err
		}
		now := time.Now()
		if !now.Before(scan) {
			f.scan(now)
			scan = now.Add(scanning)
			if err := f.conn.SetReadDeadline(scan); err != nil {
				return f.tally, err
			}
		}
		if err := f.receive(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return f.tally, err
		}
	}
	f.tally.Took = time.Since(began)
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return f.tally, err
	}
	f.tally.CPU = time.Duration(used.Utime.Nano() + used.Stime.Nano())
	return f.tally, nil
}

func (f *fleet) receive() error {
	n, err := f.packets.ReadBatch(f.in, unix.MSG_TRUNC) // N is the whole length
	if err != nil {
		return err
	}
	now := time.Now()
	for _, m := range f.in[:n] {
		_, info, _, err := unix.ParseOneSocketControlMessage(m.OOB[:m.NN])
		if err != nil || len(info) < 12 { // struct in_pktinfo
			return fmt.Errorf("datagram without its destination: %w", err)
		}
		from, ok := m.Addr.(*net.UDPAddr)
		if i := indexOf([4]byte(info[8:12])); ok && i < len(f.clients) {
			f.clients[i].take(m.Buffers[0][:min(m.N, len(m.Buffers[0]))], m.N, from, now)
		}
	}
	return nil
}

// send queues a datagram; p must stay as it is until the next receive.
func (f *fleet) send(p [][]byte, source []byte, to *net.UDPAddr) {
	f.out = append(f.out, ipv4.Message{Buffers: p, OOB: source, Addr: to})
}

func (f *fleet) flush() error {
	for rest := f.out; len(rest) > 0; {
		n, err := f.packets.WriteBatch(rest, 0)
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	f.out = f.out[:0]
	return nil
}

// scan repeats what was not answered, and counts out who waits in vain.
func (f *fleet) scan(now time.Time) {
	for i := range f.clients {
		f.clients[i].check(now)
	}
}

// release lets all clients go on that hold their first block.
func (f *fleet) release() {
	f.job.Hold = false
	for i := range f.clients {
		if c := &f.clients[i]; c.running {
			c.acknowledge()
		}
	}
}
