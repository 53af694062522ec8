package tftp

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"time"
)

// job is an admitted request.
type job struct {
	client  netip.AddrPort
	local   netip.Addr
	link    int // interface index, 0 if unknown
	largest int // block that the network carries
	ticket  *ticket
	start   time.Time
	request request
	refusal error // of a request that cannot be served
}

// finish tells the log and the observers how a request has ended.
func (v *service) finish(ctx context.Context, j job, t Transfer, unanswered int) {
	defer j.ticket.release(unanswered)
	t.Duration = time.Since(j.start)
	v.report(ctx, t)
	if v.OnDone != nil {
		v.OnDone(t)
	}
}

// report writes the one record of a transfer.
func (v *service) report(ctx context.Context, t Transfer) {
	attrs := []slog.Attr{
		slog.String("stage", "tftp"), slog.Any("addr", t.Client),
		slog.String("image", t.Name), slog.Duration("dur", t.Duration),
	}
	if t.MAC != nil {
		attrs = append(attrs, slog.String("mac", t.MAC.String()))
	}
	if t.Err == nil {
		v.log.LogAttrs(ctx, slog.LevelInfo, "tftp transfer done", attrs...)
		return
	}
	attrs = append(attrs, slog.Any("err", t.Err))
	v.log.LogAttrs(ctx, levelOf(t.Err), "tftp transfer failed", attrs...)
}

// levelOf keeps forged requests, size probes and what has a record of its own
// (shortage) out of the log, and gives what is the server's own fault the level
// that wakes someone.
func levelOf(err error) slog.Level {
	if errors.Is(err, ErrNoAnswer) || errors.Is(err, ErrSizeProbe) || errors.Is(err, errRepeated) || outOfFiles(err) {
		return slog.LevelDebug
	}
	for _, e := range []error{errSilent, errStalled, errReplaced, errDeadline, errStopping, fs.ErrNotExist, fs.ErrPermission} {
		if errors.Is(err, e) {
			return slog.LevelInfo
		}
	}
	if errors.As(err, new(*Refusal)) || errors.As(err, new(*clientError)) {
		return slog.LevelInfo
	}
	return slog.LevelError
}
