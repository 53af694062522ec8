package pki

import (
	"context"
	"crypto/rsa"
	"log/slog"
	"time"
)

// poolSize is how many keys are kept ready: enough for an admin who makes a
// few sets in a row, at a few kilobytes.
const poolSize = 8

// keyPool makes RSA keys before they are needed: one takes 0.1 to 1 s, a whole
// set of artifacts less than that. Each key is handed out once.
type keyPool struct {
	ready chan *rsa.PrivateKey
	log   *slog.Logger
}

func newKeyPool(log *slog.Logger) *keyPool {
	return &keyPool{ready: make(chan *rsa.PrivateKey, poolSize), log: log}
}

// take returns a key that is ready, or makes one.
func (p *keyPool) take() (*rsa.PrivateKey, error) {
	select {
	case key := <-p.ready:
		return key, nil
	default:
		return newKey()
	}
}

// fill keeps the pool full until ctx ends. It makes one key at a time, so that
// boots keep the other processors.
func (p *keyPool) fill(ctx context.Context) {
	for ctx.Err() == nil {
		start := time.Now()
		key, err := newKey()
		if err != nil {
			p.log.ErrorContext(ctx, "key was not made", "stage", "pki", "err", err)
			return // take makes its own, and says what is wrong
		}
		p.log.DebugContext(ctx, "key made", "stage", "artifact_key", "dur", time.Since(start))
		select {
		case p.ready <- key:
		case <-ctx.Done():
		}
	}
}
