package pki

import (
	"context"
	"crypto/rsa"
	"fmt"
	"log/slog"
	"time"
)

// poolSize is how many keys are kept ready: enough for an admin who makes a
// few sets in a row, at a few kilobytes.
const poolSize = 8

// maxMakers bounds the keys that are made at the same time, whoever waits.
const maxMakers = 2

// keyPool makes RSA keys before they are needed: one takes 0.1 to 1 s, a whole
// set of artifacts less than that. Each key is handed out once.
type keyPool struct {
	ready  chan *rsa.PrivateKey
	makers chan struct{}
	newKey func() (*rsa.PrivateKey, error)
	log    *slog.Logger
}

func newKeyPool(log *slog.Logger, newKey func() (*rsa.PrivateKey, error)) *keyPool {
	return &keyPool{ready: make(chan *rsa.PrivateKey, poolSize), makers: make(chan struct{}, maxMakers), newKey: newKey, log: log}
}

// take returns a key that is ready, or makes one. While others make theirs it
// waits for whatever comes first, or for the end of ctx.
func (p *keyPool) take(ctx context.Context) (*rsa.PrivateKey, error) {
	select {
	case key := <-p.ready:
		return key, nil
	default:
	}
	select {
	case key := <-p.ready:
		return key, nil
	case p.makers <- struct{}{}:
		defer func() { <-p.makers }()
		return p.newKey()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for a key: %w", ctx.Err())
	}
}

// fill keeps the pool full until ctx ends. It makes one key at a time, so that
// boots keep the other processors.
func (p *keyPool) fill(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case p.makers <- struct{}{}:
		case <-ctx.Done():
			return
		}
		start := time.Now()
		key, err := p.newKey()
		<-p.makers
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
