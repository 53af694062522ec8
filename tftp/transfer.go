package tftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// transfer is a transfer under way. All of it belongs to its worker.
type transfer struct {
	sender
	job     job
	ctx     context.Context // ends when the transfer is no longer wanted
	source  source
	line    line
	own     *ownPort // the line, where it is one
	told    Transfer // what observers hear in the end
	expires time.Time
	failed  error // of the last send, if it failed

	stop    func() bool // ends the watch over ctx
	queued  bool        // it is due
	filling bool        // a goroutine reads the next chunk
	ended   bool        // nothing more is sent
	reason  error       // of the end, while filling

	armed time.Time // of the timer, which may ring too early and never too late
	index int       // in the worker's heap; -1: not in it
}

// rings is when the transfer is to be looked after, if nothing happens.
func (t *transfer) rings() time.Time {
	if d := t.deadline(); !t.filling && d.Before(t.expires) {
		return d
	}
	return t.expires
}

// overdue says how the transfer goes on when its timer has rung: nil means that
// its flight goes out again.
func (t *transfer) overdue(now time.Time) error {
	if !now.Before(t.expires) {
		return errDeadline
	}
	return t.silence(now)
}

// farewell tells a client why its transfer ends early, and completes the error
// by what the kernel said last. A client that has itself ended the transfer knows,
// one that never answered may not exist, and one that was evicted in the moment
// of its answer had better ask again, as one has that was replaced.
func (t *transfer) farewell(err error) error {
	if err == nil || !t.answered || errors.As(err, new(*clientError)) || errors.Is(err, errEvicted) || errors.Is(err, errReplaced) {
		return err
	}
	if t.failed != nil {
		err = fmt.Errorf("%w (last send: %w)", err, t.failed)
	}
	p := errorPacket(refusalOf(err))
	_ = t.line.send(p, len(p))
	return err
}

// unanswered is how many datagrams were sent that nobody has answered.
func (t *transfer) unanswered() int {
	if t.answered {
		return 0
	}
	return t.datagrams
}

// report completes what observers are told.
func (t *transfer) report(err error) Transfer {
	x := t.told
	x.Size, x.Bytes = t.size, t.confirmed()
	x.BlockSize, x.Window, x.Retransmits = t.terms.block, t.terms.window, t.retransmits
	x.Err = err
	return x
}

// begin answers an admitted request: by an ERROR, or by a transfer that is the
// worker's from then on.
func (v *service) begin(ctx context.Context, j job, w *worker) {
	told := Transfer{Name: j.request.name, MAC: hardwareAddress(j.request.name), Client: j.client}
	if v.OnRequest != nil {
		v.OnRequest(told)
	}
	t, unanswered, err := v.prepare(ctx, j, w)
	if err != nil {
		told.Err = err
		v.finish(ctx, j, told, unanswered)
		return
	}
	t.told = told
	v.running.Add(1)
	w.post(mail{transfer: t, kind: added})
}

// prepare opens the file and the line. It returns how many datagrams it has sent.
func (v *service) prepare(ctx context.Context, j job, w *worker) (*transfer, int, error) {
	t := &transfer{job: j, ctx: ctx, expires: j.start.Add(v.limits.Duration), index: -1}
	if v.SinglePort {
		t.line = newSharedPort(w.in.conn, j)
	} else {
		own, err := newOwnPort(j, v.DSCP, v.allowed)
		if err != nil {
			v.shortage.observe(ctx, err, time.Now())
			return nil, 0, err
		}
		t.line, t.own = own, own
	}
	file, err := v.open(ctx, j)
	v.shortage.observe(ctx, err, time.Now())
	if ctx.Err() != nil {
		t.line.close()
		return nil, 0, context.Cause(ctx)
	}
	if err != nil {
		p := errorPacket(refusalOf(err))
		_ = t.line.send(p, len(p)) // a lost one is asked for again
		t.line.close()
		return nil, 1, err
	}
	tm := negotiate(j.request.options, file.Size(), j.largest)
	t.sender = newSender(file.Size(), tm)
	t.source = newSource(file, tm.block*tm.window, &v.pool)
	return t, 0, nil
}

// open asks the handler, unless the request itself is wrong.
func (v *service) open(ctx context.Context, j job) (*io.SectionReader, error) {
	if j.refusal != nil {
		return nil, j.refusal
	}
	ctx, cancel := context.WithTimeoutCause(ctx, v.limits.Duration, errDeadline)
	defer cancel()
	file, err := v.Open(ctx, j.request.name, j.client)
	if err == nil && file == nil {
		return nil, errors.New("handler returned neither a file nor an error")
	}
	return file, err
}
