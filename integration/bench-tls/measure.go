package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nestboot/nestboot/integration/bench"
	"github.com/nestboot/nestboot/integration/customer"
	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/rig"
)

// side is a server under load, with what its rounds came to.
type side struct {
	name   string
	to     target
	pid    int
	rates  []float64       // handshakes per second of CPU
	costs  []time.Duration // CPU per handshake
	walls  []float64       // handshakes per second
	failed int
	reason string // of the first that failed
}

// round loads the server and notes what it cost.
func (s *side) round(ctx context.Context, f files, d time.Duration) error {
	before, err := bench.CPU(s.pid)
	if err != nil {
		return err
	}
	timed, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	t := load(timed, s.to, f.Client)
	after, err := bench.CPU(s.pid)
	if err != nil {
		return err
	}
	if t.Done == 0 {
		return fmt.Errorf("%s made no handshake: %s", s.name, t.Error)
	}
	used := after - before
	s.rates = append(s.rates, float64(t.Done)/used.Seconds())
	s.costs = append(s.costs, used/time.Duration(t.Done))
	s.walls = append(s.walls, float64(t.Done)/t.Took.Seconds())
	s.failed += t.Failed
	s.reason = cmp.Or(s.reason, t.Error)
	return nil
}

func (s *side) String() string {
	return fmt.Sprintf("%s: %d µs of server CPU per handshake, %.0f handshakes/s by the clock, %d failed %s",
		s.name, bench.Median(s.costs).Microseconds(), bench.Median(s.walls), s.failed, s.reason)
}

// measure compares the two servers with keys of one type.
func measure(ctx context.Context, out io.Writer, m lab.Materials, k customer.KeyType, o options) (f bench.Figure, err error) {
	dir, err := os.MkdirTemp("", "nestboot-bench-tls-")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	certs, err := makeFiles(dir, k, host, "boot."+rig.Domain)
	if err != nil {
		return f, err
	}
	ours, err := rig.Loopback{
		Dir: dir, Bootd: o.bootd, Nestctl: o.nestctl, Core: serverCore, Image: 3, // as much as the peer answers
		Config: fmt.Sprintf("certificates: [{certificate: %s, key: %s}]", certs.Chain, certs.Key),
	}.Start(ctx)
	if err != nil {
		return f, err
	}
	defer ours.Close()
	nginx, addr, err := startNginx(ctx, m, dir, certs)
	if err != nil {
		return f, err
	}
	defer nginx.Kill()
	if _, err := ours.Nestctl(ctx, "trust", "add", "bench", "--ca", certs.CA); err != nil {
		return f, err
	}
	us := &side{name: "bootd", pid: ours.Proc.Pid(), to: target{Addr: ours.HTTPS, Name: host}}
	peer := &side{name: "nginx", pid: nginx.Pid(), to: target{Addr: addr, Name: host}}
	failed := 0
	race := func(what string, rounds int) error {
		err := inTurn(ctx, certs, o.round, rounds, us, peer)
		failed += us.failed + peer.failed
		fmt.Fprintf(out, "%[1]s%[2]s: %[3]s\n%[1]s%[2]s: %[4]s\n", k, what, us, peer)
		return err
	}
	if err := race("", o.rounds); err != nil {
		return f, err
	}
	f = bench.Figure{
		Name: "mtls_" + string(k), Unit: "handshakes/s", Ours: bench.Median(us.rates), Theirs: bench.Median(peer.rates), Counts: true,
	}
	us.to.Path, peer.to.Path = imagePath, imagePath
	if err := race(", and one request on each connection, for which ours looks who asks", o.rounds/3); err != nil {
		return f, err
	}
	if k == customer.RSA2048 {
		plain, addr, err := startNginx(ctx, m, dir, certs, withoutIFMA)
		if err != nil {
			return f, err
		}
		defer plain.Kill()
		us.to.Path, peer.to, peer.pid = "", target{Addr: addr, Name: host}, plain.Pid()
		if err := race(", nginx as on a processor without AVX-512 IFMA", o.rounds/3); err != nil {
			return f, err
		}
	}
	f.Failed = failed
	return f, nil
}

// imagePath is what is asked for where something is.
const imagePath = "/ipxe/images/lab/kernel"

// inTurn loads the sides A B A B …, after one round each that does not count.
func inTurn(ctx context.Context, f files, round time.Duration, rounds int, sides ...*side) error {
	for _, s := range sides {
		s.failed, s.reason = 0, ""
	}
	for i := range rounds + 1 {
		for _, s := range sides {
			if err := s.round(ctx, f, round); err != nil {
				return err
			}
			if i == 0 { // warm now
				s.rates, s.costs, s.walls = nil, nil, nil
			}
		}
	}
	return nil
}
