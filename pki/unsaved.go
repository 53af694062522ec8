package pki

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nestboot/nestboot/store"
)

// saveEvery is how often Run tries to write down what could not be.
const saveEvery = 5 * time.Second

// Unsaved is the error of a change that takes something away: it is in force,
// but not written down, so that a restart would forget it. Run, of whatever
// package returned it, tries until it is; the same call again does too.
type Unsaved struct {
	What string // that is in force, as in "certificate 1f is refused"
	Err  error  // why it is not written down
}

func (u *Unsaved) Error() string {
	remedy := "repeat the command"
	if errors.Is(u.Err, store.ErrNoSpace) {
		remedy = "make room for the store"
	}
	return fmt.Sprintf("%s from now on, but a restart would forget that until it can be written down, which is tried again: %s: %v", u.What, remedy, u.Err)
}

func (u *Unsaved) Unwrap() error { return u.Err }

// save writes down, until ctx ends and then once more, what only memory knows.
func (a *Authority) save(ctx context.Context) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			a.saveOnce(context.WithoutCancel(ctx))
			return
		case <-tick.C:
			a.saveOnce(ctx)
		}
	}
}

func (a *Authority) saveOnce(ctx context.Context) {
	if err := errors.Join(a.records.save(ctx), a.saveDrops(ctx)); err != nil {
		a.log.ErrorContext(ctx, "what was revoked or dropped is refused, but a restart would forget that; trying again", "stage", "pki", "err", err)
	}
}
