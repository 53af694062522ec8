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
	patience = time.Second // without an answer
	maxTries = 15
	scanning = 200 * time.Millisecond
)

// fleet is many clients on one socket: each has an address of its own in
// 127.0.0.0/8, by which the kernel says whom a datagram is for. Of a block only
// the beginning is copied out of the kernel.
type fleet struct {
	*socket
	job     job
	server  *net.UDPAddr
	clients []client
	until   time.Time
	active  int
	held    int
	tally   tally
	err     error // of a send
}

func newFleet(j job) (*fleet, error) {
	server, err := net.ResolveUDPAddr("udp4", j.Server)
	if err != nil {
		return nil, err
	}
	s, err := newSocket()
	if err != nil {
		return nil, fmt.Errorf("make the clients' socket: %w", err)
	}
	f := &fleet{socket: s, job: j, server: server, clients: make([]client, j.Clients)}
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
	for scan := began; f.active > 0; {
		if err := errors.Join(f.err, f.flush()); err != nil {
			return f.tally, err
		}
		now := time.Now()
		if !now.Before(scan) {
			f.scan(now)
			scan = now.Add(scanning)
		}
		n, err := f.receive()
		if err != nil {
			return f.tally, err
		}
		for i := range n {
			p, length, from, to := f.datagram(i)
			if c := indexOf(to); c >= 0 && c < len(f.clients) {
				f.clients[c].take(p, length, from, now)
			}
		}
	}
	if err := f.flush(); err != nil { // the last ACKs
		return f.tally, err
	}
	f.tally.Took = time.Since(began)
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return f.tally, err
	}
	f.tally.CPU = time.Duration(used.Utime.Nano() + used.Stime.Nano())
	return f.tally, nil
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
