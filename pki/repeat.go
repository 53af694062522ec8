package pki

import (
	"context"
	"log/slog"
	"time"
)

// repeat calls do until ctx ends, waiting each time for as long as do says, or
// after a failure for a minute, doubling up to an hour.
func repeat(ctx context.Context, log *slog.Logger, stage string, do func(context.Context) (time.Duration, error)) {
	const shortest, longest = time.Minute, time.Hour
	retry := shortest
	for {
		wait, err := do(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			log.ErrorContext(ctx, "periodic work failed and will be tried again", "stage", stage, "err", err, "dur", retry)
			wait, retry = retry, min(2*retry, longest)
		default:
			retry = shortest
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}
