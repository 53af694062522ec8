package tftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"time"
)

// job is an admitted request.
type job struct {
	client  netip.AddrPort
	local   netip.Addr
	largest int // block that the network carries
	ticket  *ticket
	start   time.Time
	request request
	refusal error // of a request that cannot be served
}

// serve carries out a job, and tells the log and the observers.
func (v *service) serve(ctx context.Context, j job) {
	t := Transfer{Name: j.request.name, Client: j.client}
	if v.OnRequest != nil {
		v.OnRequest(t)
	}
	var unanswered int
	unanswered, t.Err = v.transfer(ctx, j, &t)
	defer j.ticket.release(unanswered)
	t.Duration = time.Since(j.start)
	v.report(ctx, t)
	if v.OnDone != nil {
		v.OnDone(t)
	}
}

// transfer answers a request. It returns how many datagrams it has sent that the
// client has not answered.
func (v *service) transfer(ctx context.Context, j job, t *Transfer) (int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, v.limits.Duration, errDeadline)
	defer cancel()
	w, err := newOutlet(j.local, j.client, v.allowed)
	if err != nil {
		return 0, err
	}
	defer w.close()
	stop := context.AfterFunc(ctx, w.interrupt)
	defer stop()

	file, err := v.open(ctx, j)
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err != nil {
		w.Send(errorPacket(refusalOf(err)))
		return 1, err
	}
	s := newSender(w, file, negotiate(j.request.options, file.Size(), j.largest), &v.pool, j.ticket.answered)
	err = s.run(ctx)
	t.Size, t.Bytes = file.Size(), s.confirmed()
	t.BlockSize, t.Window, t.Retransmits = s.terms.block, s.terms.window, s.retransmits
	if !s.answered {
		return s.datagrams, err
	}
	return 0, w.farewell(err)
}

// open asks the handler, unless the request itself is wrong.
func (v *service) open(ctx context.Context, j job) (*io.SectionReader, error) {
	if j.refusal != nil {
		return nil, j.refusal
	}
	file, err := v.Open(ctx, j.request.name, j.client)
	if err == nil && file == nil {
		return nil, errors.New("handler returned neither a file nor an error")
	}
	return file, err
}

// farewell tells a client why its transfer ends early, and completes the error
// by what the kernel said last. A client that has itself ended the transfer knows,
// and one that was evicted in the moment of its answer had better ask again.
func (o *outlet) farewell(err error) error {
	if err == nil || errors.As(err, new(*clientError)) || errors.Is(err, errEvicted) {
		return err
	}
	if o.failed != nil {
		err = fmt.Errorf("%w (last send: %w)", err, o.failed)
	}
	o.Send(errorPacket(refusalOf(err)))
	return err
}

// report writes the one record of a transfer.
func (v *service) report(ctx context.Context, t Transfer) {
	attrs := []slog.Attr{
		slog.String("stage", "tftp"), slog.Any("addr", t.Client),
		slog.String("image", t.Name), slog.Duration("dur", t.Duration),
	}
	if t.Err == nil {
		v.log.LogAttrs(ctx, slog.LevelInfo, "tftp transfer done", attrs...)
		return
	}
	attrs = append(attrs, slog.Any("err", t.Err))
	v.log.LogAttrs(ctx, levelOf(t.Err), "tftp transfer failed", attrs...)
}

// levelOf keeps forged requests and size probes out of the log, and gives what
// is the server's own fault the level that wakes someone.
func levelOf(err error) slog.Level {
	if errors.Is(err, ErrNoAnswer) || errors.Is(err, ErrSizeProbe) {
		return slog.LevelDebug
	}
	for _, e := range []error{errSilent, errDeadline, errStopping, fs.ErrNotExist, fs.ErrPermission} {
		if errors.Is(err, e) {
			return slog.LevelInfo
		}
	}
	if errors.As(err, new(*Refusal)) || errors.As(err, new(*clientError)) {
		return slog.LevelInfo
	}
	return slog.LevelError
}
