package links

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nestboot/nestboot/store"
)

const (
	// remember is for how long a revoked token is called revoked and not
	// unknown.
	remember = 90 * 24 * time.Hour
	// maxRevoked bounds the revoked links of a kind that are remembered.
	maxRevoked = 10000
	// writeEvery is how often Run writes down who used which link, and what
	// could not be written before.
	writeEvery = 5 * time.Second
	// sweepEvery is how often Run looks for what can be forgotten.
	sweepEvery = time.Hour
	// sweepBatch links are forgotten in one transaction.
	sweepBatch = 1000
)

// Run writes down who used which link, writes down revocations that could not
// be written before, ends the links of sets that are gone and forgets links that
// were revoked long ago, until ctx ends; then it writes what is left and
// returns nil.
func (l *Links) Run(ctx context.Context) error {
	write, sweep := time.NewTicker(writeEvery), time.NewTicker(sweepEvery)
	defer write.Stop()
	defer sweep.Stop()
	l.sweep(ctx)
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
			defer cancel()
			l.flush(last)
			return nil
		case <-write.C:
			l.flush(ctx)
		case <-sweep.C:
			l.sweep(ctx)
		}
	}
}

// flush hands to the store what waits for it.
func (l *Links) flush(ctx context.Context) {
	if err := l.flushEnds(ctx); err != nil {
		l.cfg.Log.ErrorContext(ctx, "urls that were revoked are refused, but a restart would forget that; trying again", "err", err)
	}
	if err := l.flushUses(ctx); err != nil {
		l.cfg.Log.DebugContext(ctx, "uses of urls are kept in memory until they can be written down", "err", err)
	}
}

// flushEnds writes down the revocations that only memory knows.
func (l *Links) flushEnds(ctx context.Context) error {
	l.mu.RLock()
	n := len(l.condemned)
	l.mu.RUnlock()
	if n == 0 {
		return nil
	}
	for _, kind := range kinds() {
		if _, err := l.end(ctx, kind, func(r record) bool { return !l.doom(r.key()).IsZero() }); err != nil {
			return err
		}
	}
	l.settle() // what was written although that seemed to fail
	return nil
}

// sweep ends what belongs to nothing and forgets what nobody asks for.
func (l *Links) sweep(ctx context.Context) {
	if _, err := l.end(ctx, UEFI, func(r record) bool { return !l.cfg.Exists(r.Set) }); err != nil {
		l.cfg.Log.ErrorContext(ctx, "urls of artifact sets that are gone are refused, but not written down as revoked; trying again", "err", err)
	}
	l.forgetUsesOfOthers()
	if err := l.forget(ctx); err != nil {
		l.cfg.Log.DebugContext(ctx, "urls that were revoked long ago stay until the store takes writes", "err", err)
	}
}

// forget removes links that were revoked more than 90 days ago, and the oldest
// when there are too many.
func (l *Links) forget(ctx context.Context) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	for _, kind := range kinds() {
		old := slices.DeleteFunc(decodeAll(l.mirror.List(kindPrefix(kind))), func(r record) bool { return r.Revoked.IsZero() })
		slices.SortFunc(old, func(a, b record) int { return b.Revoked.Compare(a.Revoked) })
		keep := min(len(old), maxRevoked)
		for keep > 0 && l.cfg.Now().Sub(old[keep-1].Revoked) > remember {
			keep--
		}
		for batch := range slices.Chunk(old[keep:], sweepBatch) {
			var txn store.Txn
			for _, r := range batch {
				txn.Then = append(txn.Then, store.Remove(r.key()))
			}
			revision, err := l.cfg.Store.Commit(ctx, txn)
			if err == nil {
				err = l.mirror.Wait(ctx, revision)
			}
			if err != nil {
				return fmt.Errorf("forget urls: %w", err)
			}
			l.forgetKnown(batch)
		}
	}
	return nil
}

func (l *Links) forgetKnown(gone []record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range gone {
		delete(l.known, r.key())
	}
}
