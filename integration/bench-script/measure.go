package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"github.com/nestboot/nestboot/integration/bench"
	"github.com/nestboot/nestboot/integration/rig"
)

// redeems is how often a grant may be used, and perRound how many requests a
// round has.
const (
	redeems  = 5
	perRound = 5000
)

const (
	ipxeHost = "ipxe." + rig.Domain
	bootHost = "boot." + rig.Domain
)

// setup is the server under test, and how to connect to it.
type setup struct {
	server *rig.LoopbackServer
	o      options
	ipxe   *tls.Config
	boot   *tls.Config
	asked  int // questions so far: each is of the next machine
}

func newBench(ctx context.Context, s *rig.LoopbackServer, o options) (*setup, error) {
	if _, err := s.Nestctl(ctx, "artifact", "create", "bench"); err != nil {
		return nil, err
	}
	cert, err := s.Certificate(ctx, "bench")
	if err != nil {
		return nil, err
	}
	return &setup{
		server: s, o: o,
		ipxe: &tls.Config{
			ServerName: ipxeHost, Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS12,
			InsecureSkipVerify: true, // whether the client verifies is nothing to the server
		},
		boot: &tls.Config{ServerName: bootHost, InsecureSkipVerify: true}, // as above
	}, nil
}

// all does a job n times over connections of its own, whose handshakes do not
// count: the server waits for the first request of one no longer than 5 s.
func (b *setup) all(ctx context.Context, config *tls.Config, n int, j job) (*result, error) {
	clients, err := dial(ctx, b.server.HTTPS, config, b.o.conns)
	defer func() {
		for _, c := range clients {
			_ = c.tls.Close() // it has served
		}
	}()
	if err != nil {
		return nil, err
	}
	r, err := newResult(b.server.Proc.Pid(), n)
	if err != nil {
		return nil, err
	}
	r.failed, r.first = all(clients, n, j)
	return r, r.end()
}

// question appends the request of a machine's script.
func question(out []byte, machine int) []byte {
	return fmt.Appendf(out, "GET /ipxe/boot?uuid=4c4c4544-0042-3510-8052-%012x&mac=52-54-00-%02x-%02x-%02x&serial=B%d&arch=x86_64&platform=efi&ip=127.0.1.1 HTTP/1.1\r\n"+
		"User-Agent: iPXE/2.0.0\r\nHost: "+ipxeHost+"\r\nConnection: keep-alive\r\n\r\n",
		machine, byte(machine>>16), byte(machine>>8), byte(machine), machine)
}

var ownInitrd = regexp.MustCompile(`/ipxe/initrd/([0-9a-f]+)`)

// boots asks for n scripts, of one machine after the other, and calls got with
// each boot's id.
func (b *setup) boots(ctx context.Context, n, machines int, got func(i int, id []byte)) (*result, error) {
	from := b.asked
	b.asked += n
	return b.all(ctx, b.ipxe, n, job{
		request: func(out []byte, i int) []byte { return question(out, (from+i)%machines) },
		answer: func(i int, body []byte) error {
			at := bytes.LastIndex(body, []byte("/ipxe/initrd/"))
			if at < 0 {
				return fmt.Errorf("the script does not boot: %.200q", body)
			}
			if got != nil {
				got(i, ownInitrd.FindSubmatch(body[at:])[1])
			}
			return nil
		},
	})
}

// authorization is what the pointer config in an initrd tells Ignition to send.
var authorization = regexp.MustCompile(`"value": "(Bearer [^"]+)"`)

// grants begins boots of n machines and fetches their initrds.
func (b *setup) grants(ctx context.Context, n, machines int) ([]string, error) {
	ids, grants := make([]string, n), make([]string, n)
	r, err := b.boots(ctx, n, machines, func(i int, id []byte) { ids[i] = string(id) })
	if err := errors.Join(err, r.Err()); err != nil {
		return nil, err
	}
	r, err = b.all(ctx, b.ipxe, n, job{
		request: func(out []byte, i int) []byte {
			return fmt.Appendf(out, "GET /ipxe/initrd/%s HTTP/1.1\r\nHost: "+ipxeHost+"\r\n\r\n", ids[i])
		},
		answer: func(i int, body []byte) error {
			m := authorization.FindSubmatch(body)
			if m == nil {
				return errors.New("the initrd holds no Authorization")
			}
			grants[i] = string(m[1])
			return nil
		},
	})
	if err := errors.Join(err, r.Err()); err != nil {
		return nil, err
	}
	return grants, nil
}

// ignition redeems each grant as often as it may be.
func (b *setup) ignition(ctx context.Context, grants []string) (*result, error) {
	return b.all(ctx, b.boot, len(grants)*redeems, job{
		request: func(out []byte, i int) []byte {
			return fmt.Appendf(out, "GET /ipxe/ignition HTTP/1.1\r\nUser-Agent: Ignition/2.14.0\r\nHost: "+bootHost+"\r\nAuthorization: %s\r\nAccept: */*\r\n\r\n",
				grants[i%len(grants)])
		},
		answer: func(_ int, body []byte) error {
			if !bytes.Contains(body[:min(len(body), 40)], []byte(`"ignition":`)) {
				return fmt.Errorf("no config: %.60q", body)
			}
			return nil
		},
	})
}

// measure makes n machines known and asks both questions, in turn.
func (b *setup) measure(ctx context.Context, out io.Writer, n int) ([]bench.Figure, error) {
	b.asked = 0
	known, err := b.boots(ctx, n, n, nil)
	if err := errors.Join(err, known.Err()); err != nil {
		return nil, fmt.Errorf("make machines known: %w", err)
	}
	busy, err := b.calm(ctx)
	if err != nil {
		return nil, err
	}
	memory, err := bench.MemoryOf(b.server.Proc.Pid())
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "%d machines, new ones among them, began to boot within %.1f s; bootd was calm %.1f s later, with %d MiB resident\n",
		n, known.took.Seconds(), busy.Seconds(), memory.Resident>>20)
	script, config := &rounds{name: "boot"}, &rounds{name: "ignition"}
	for i := range b.o.rounds + 1 { // the first does not count
		r, err := b.boots(ctx, perRound, n, nil)
		if err != nil {
			return nil, err
		}
		script.add(r, i > 0)
		grants, err := b.grants(ctx, min(perRound/redeems, n), n)
		if err != nil {
			return nil, fmt.Errorf("make grants: %w", err)
		}
		if r, err = b.ignition(ctx, grants); err != nil {
			return nil, err
		}
		config.add(r, i > 0)
	}
	size := fmt.Sprintf("%dk", n/1000)
	fmt.Fprintf(out, "%s: %s\n%s: %s\n", size, script, size, config)
	return []bench.Figure{script.figure("script_boot_" + size), config.figure("script_ignition_" + size)}, nil
}

// calm waits until the server has written down what it was told: it uses next
// to no processor time.
func (b *setup) calm(ctx context.Context) (time.Duration, error) {
	const span, idle = time.Second, 50 * time.Millisecond
	start := time.Now()
	before, err := bench.CPU(b.server.Proc.Pid())
	for {
		if err != nil {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(span):
		}
		var now time.Duration
		if now, err = bench.CPU(b.server.Proc.Pid()); now-before < idle {
			return time.Since(start), err
		}
		before = now
	}
}
