// Package links keeps the URLs whose secret token says who may boot: iPXE chain
// URLs, with which a machine that has none of our artifacts boots, and UEFI HTTP
// Boot URLs, from which firmware fetches the files of one artifact set.
//
// It serves nothing and builds no URL: it makes tokens, says whose token a
// request shows, and ends a link at once. Tokens are stored as digests; whoever
// may ask for a link can be shown its token again, since it is made from the
// link and a secret of this installation that lies in a file of its own.
//
// Begin at Open, then Links.Create and Links.Find.
package links

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/vault"
	"github.com/nestboot/nestboot/store"
)

// Config says where the links are kept.
type Config struct {
	// Store holds the links, below "links/", "link-ids/" and "link-uses/".
	// Required.
	Store *store.Store
	// Vault reads and writes the file Path; nil: one that does not encrypt.
	Vault *vault.Vault
	// Path is the file of the secret from which tokens are made. It is made if
	// it is missing, in a directory that exists. Required.
	Path string
	// Exists reports whether the artifact set with this number exists and is
	// not being deleted. Run ends the links of sets that don't, for good, so it
	// must know all sets when Run begins. It reads memory only. nil: every set
	// exists.
	Exists func(set int64) bool
	// Log receives one line per link made or revoked; nil: nothing is logged.
	Log *slog.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// storeTimeout bounds each change: a request waits behind it, and does not end
// it by going away.
const storeTimeout = 5 * time.Second

// ErrUnknown is returned for a link that does not exist.
var ErrUnknown = errors.New("no such URL")

// Links are the URLs of one installation. Their methods may be called
// concurrently. Find, Good, Get, List and Used read memory only.
type Links struct {
	cfg    Config
	secret pki.Secret
	mirror *store.Mirror

	// writing is held around each change of the store.
	writing sync.Mutex

	// mu guards what follows.
	mu sync.RWMutex
	// condemned are the keys of records that were revoked, and when, until the
	// mirror says so itself.
	condemned map[string]time.Time
	changed   chan struct{}
	known     map[string]record // what decoded has decoded, by key
	tallies   map[string]*tally // by useKey

	// steps is called between the steps of a change, in tests.
	steps func(step string)
}

// Open loads the links. ctx bounds the loading only.
func Open(ctx context.Context, cfg Config) (*Links, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Exists == nil {
		cfg.Exists = func(int64) bool { return true }
	}
	secret, err := openSecret(cfg.Vault, cfg.Path)
	if err != nil {
		return nil, err
	}
	mirror, err := cfg.Store.Mirror(context.WithoutCancel(ctx), recordPrefix)
	if err != nil {
		return nil, fmt.Errorf("load links: %w", err)
	}
	l := &Links{
		cfg: cfg, secret: secret, mirror: mirror,
		condemned: map[string]time.Time{}, changed: make(chan struct{}), known: map[string]record{}, tallies: map[string]*tally{},
	}
	l.inspect(ctx)
	if err := l.loadUses(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// inspect warns of records that are not what they should be.
func (l *Links) inspect(ctx context.Context) {
	foreign := 0
	for _, e := range l.mirror.List(recordPrefix) {
		r, err := decode(e)
		if err != nil {
			l.cfg.Log.ErrorContext(ctx, "the record of a URL is damaged: its token is refused, make another URL", "key", e.Key, "err", err)
			continue
		}
		if r.Revoked.IsZero() && l.Token(r.link()).Encode() == "" {
			foreign++
		}
	}
	if foreign > 0 {
		l.cfg.Log.WarnContext(ctx, "URLs were made with another secret: they work, but cannot be shown again. Restore the file from a backup, or make the URLs anew",
			"file", l.cfg.Path, "urls", foreign)
	}
}

// Changed returns a channel that is closed by the next change after which a
// token may be refused that was good before; that its end has come is none.
// Take it before asking, so that no change is missed between the two.
func (l *Links) Changed() <-chan struct{} {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.changed
}

func (l *Links) step(name string) {
	if l.steps != nil {
		l.steps(name)
	}
}
