package tftp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Server answers read requests. Its fields are not to be changed while it serves.
type Server struct {
	// Open finds the file for a request. It is called from many goroutines, and
	// is required. While it works its client hears nothing: firmware repeats the
	// request after seconds, and gives up after a few.
	Open Handler
	// Log receives one info record per transfer that got as far as an answer,
	// one warning per ten seconds in which requests were dropped, an error where
	// Open failed or a file could not be read, and one when file descriptors run
	// out, with an info record when there are some again. Nil means no log.
	Log *slog.Logger
	// Networks are the client networks that are answered. Empty means loopback,
	// link-local, and the private ranges of RFC 1918 and RFC 4193.
	Networks []netip.Prefix
	// OnRequest, if not nil, is told of a request before Open is: Name and
	// Client are set. OnDone, if not nil, is told of the same request when it
	// has ended, however it has. Both are called from goroutines of the request's
	// own, and must not block. Neither is told of requests that the Limits drop; the
	// address of those that OnDone reports with ErrNoAnswer may be forged.
	OnRequest, OnDone func(Transfer)
	// SinglePort has everything sent from the request port, for networks whose
	// address translator or firewall lets no other through. A client's answer then
	// proves less, since the port that it has to name is known: who forges a
	// request can forge the answers to it.
	SinglePort bool
	// DSCP marks what is sent (RFC 2474), 0 to 63.
	DSCP int
	// Limits bounds transfers, replies and time.
	Limits Limits
}

// service is one run of Serve.
type service struct {
	*Server
	log      *slog.Logger
	limits   Limits
	networks []netip.Prefix
	gate     *gate
	pool     bufferPool
	shortage shortage
	running  sync.WaitGroup

	mu       sync.Mutex
	stopping bool // guarded by mu: running gets no more
}

// enter counts a request as running, unless it comes too late.
func (v *service) enter() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stopping {
		return false
	}
	v.running.Add(1)
	return true
}

// Serve answers requests that arrive at conns, unconnected UDP sockets that the
// caller has bound, to a wildcard address or another: to several addresses, or
// several times to the same one (SO_REUSEPORT), which gives each a goroutine of
// its own for all transfers that come in by it. It owns conns from now on.
//
// When ctx ends it closes conns, lets running transfers end for at most
// Limits.Grace, and returns nil after the last of its goroutines has ended. An
// error means that one of conns failed; running transfers have had their grace
// then too.
func (s *Server) Serve(ctx context.Context, conns ...*net.UDPConn) error {
	defer closeAll(conns) // closed before on most ways
	if s.Open == nil {
		return errors.New("tftp server has no handler: set Open")
	}
	v := s.service()
	workers, err := v.workers(conns)
	if err != nil {
		return err
	}
	accepting, stop := context.WithCancel(ctx)
	defer stop()
	transfers, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	var working, reading sync.WaitGroup
	failed := make(chan error, len(workers))
	for _, w := range workers {
		working.Go(w.run)
		reading.Go(func() { failed <- v.accept(accepting, transfers, w); stop() })
	}
	<-accepting.Done()
	if !v.SinglePort {
		closeAll(conns)
		reading.Wait()
	}
	v.drain(cancel)
	closeAll(conns)
	reading.Wait()
	for _, w := range workers {
		w.post(mail{kind: stopped})
	}
	working.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return <-failed
}

func closeAll(conns []*net.UDPConn) {
	for _, c := range conns {
		_ = c.Close() // twice does no harm
	}
}

// workers makes one for each socket.
func (v *service) workers(conns []*net.UDPConn) (workers []*worker, err error) {
	defer func() {
		if err != nil {
			for _, w := range workers {
				w.close()
			}
		}
	}()
	for _, conn := range conns {
		in, err := newInlet(conn, v.DSCP)
		if err != nil {
			return workers, err
		}
		w, err := newWorker(v, in)
		if err != nil {
			return workers, err
		}
		workers = append(workers, w)
	}
	if len(workers) == 0 {
		return nil, errors.New("tftp server has no socket")
	}
	return workers, nil
}

func (s *Server) service() *service {
	v := &service{Server: s, log: s.Log, limits: s.Limits.withDefaults(), networks: s.Networks}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	if len(v.networks) == 0 {
		v.networks = privateNetworks()
	}
	v.gate, v.shortage.log = newGate(v.limits), v.log
	return v
}

// accept reads requests until the socket is closed or fails. When accepting ends
// no new ones are taken, only, where there is a single port, answers to the old.
func (v *service) accept(accepting, transfers context.Context, w *worker) error {
	drops := dropLog{log: v.log}
	for {
		a, err := w.in.read()
		if err != nil {
			return err
		}
		if v.SinglePort && !isRequest(a.packet) {
			if x, ok := parseAnswer(a.packet); ok {
				w.post(mail{kind: answered, client: a.client, answer: x})
			}
			continue
		}
		if accepting.Err() != nil || !isRequest(a.packet) || !a.answerable() || !v.allowed(a.client.Addr()) {
			continue
		}
		ctx, t, err := v.gate.admit(transfers, a.client, a.packet)
		if errors.Is(err, errRepeated) {
			w.post(mail{kind: repeated, ticket: t})
			continue
		}
		if err != nil {
			drops.add(transfers, a.client, err)
			continue
		}
		j := job{client: a.client, local: a.local, link: a.link, largest: w.in.largestBlock(a), ticket: t, start: time.Now()}
		j.request, j.refusal = parseRequest(a.packet)
		if !v.enter() {
			t.release(0)
			continue
		}
		go func() {
			defer v.running.Done()
			v.begin(ctx, j, w)
		}()
	}
}

// drain waits for the running transfers, and ends those that outlast the grace.
func (v *service) drain(cancel context.CancelCauseFunc) {
	v.mu.Lock()
	v.stopping = true
	v.mu.Unlock()
	timer := time.AfterFunc(v.limits.Grace, func() { cancel(errStopping) })
	defer timer.Stop()
	v.running.Wait()
}

func (v *service) allowed(a netip.Addr) bool {
	a = a.WithZone("") // a prefix contains no address with a zone
	for _, p := range v.networks {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// dropInterval keeps a flood of requests from becoming a flood of records.
const dropInterval = 10 * time.Second

// dropLog counts the requests that were not admitted.
type dropLog struct {
	log  *slog.Logger
	next time.Time
	n    int
}

func (d *dropLog) add(ctx context.Context, client netip.AddrPort, reason error) {
	d.n++
	if time.Now().Before(d.next) {
		return
	}
	d.log.WarnContext(ctx, "tftp requests dropped", "stage", "tftp", "addr", client,
		"err", fmt.Errorf("%d since the last such record, this one: %w", d.n, reason))
	d.n, d.next = 0, time.Now().Add(dropInterval)
}
