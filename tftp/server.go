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
	// one warning per ten seconds in which requests were dropped, and an error
	// where Open failed or a file could not be read. Nil means no log.
	Log *slog.Logger
	// Networks are the client networks that are answered. Empty means loopback,
	// link-local, and the private ranges of RFC 1918 and RFC 4193.
	Networks []netip.Prefix
	// OnRequest, if not nil, is told of a request before Open is: Name and
	// Client are set. OnDone, if not nil, is told of the same request when it
	// has ended, however it has. Both are called from the transfer's goroutine
	// and must not block. Neither is told of requests that the Limits drop; the
	// address of those that OnDone reports with ErrNoAnswer may be forged.
	OnRequest, OnDone func(Transfer)
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
	running  sync.WaitGroup
}

// Serve answers requests that arrive at conn, an unconnected UDP socket that the
// caller has bound, to a wildcard address or another. It owns conn from now on.
//
// When ctx ends it closes conn, lets running transfers end for at most
// Limits.Grace, and returns nil after the last of its goroutines has ended. An
// error means that conn failed; running transfers have had their grace then too.
func (s *Server) Serve(ctx context.Context, conn *net.UDPConn) error {
	defer func() { _ = conn.Close() }() // closed before on every way but the first two
	if s.Open == nil {
		return errors.New("tftp server has no handler: set Open")
	}
	in, err := newInlet(conn)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()

	v := s.service()
	transfers, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	err = v.accept(transfers, in)
	v.drain(cancel)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Server) service() *service {
	v := &service{Server: s, log: s.Log, limits: s.Limits.withDefaults(), networks: s.Networks}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	if len(v.networks) == 0 {
		v.networks = privateNetworks()
	}
	v.gate = newGate(v.limits)
	return v
}

// accept reads requests until the socket is closed or fails.
func (v *service) accept(ctx context.Context, in *inlet) error {
	drops := dropLog{log: v.log}
	for {
		a, err := in.read()
		if err != nil {
			return err
		}
		if !isRequest(a.packet) || !a.answerable() || !v.allowed(a.client.Addr()) {
			continue
		}
		tctx, t, err := v.gate.admit(ctx, a.client, a.packet)
		if errors.Is(err, errRepeated) {
			continue
		}
		if err != nil {
			drops.add(ctx, a.client, err)
			continue
		}
		j := job{client: a.client, local: a.local, largest: in.largestBlock(a), ticket: t, start: time.Now()}
		j.request, j.refusal = parseRequest(a.packet)
		v.running.Go(func() { v.serve(tctx, j) })
	}
}

// drain waits for the running transfers, and ends those that outlast the grace.
func (v *service) drain(cancel context.CancelCauseFunc) {
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
