package store

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	memberName = "nestboot"
	// peerAddr is the member's name for itself in its own log. Nothing listens
	// there and nothing is ever dialed, because there is one member; etcd only
	// insists that it looks like an address.
	peerAddr = "localhost:0"
	// startTimeout bounds the replay of etcd's log, which holds at most a few
	// ten thousand entries.
	startTimeout = time.Minute
)

// engine is the embedded etcd with a client that calls its functions directly.
type engine struct {
	etcd   *embed.Etcd
	client *clientv3.Client
	zap    *zap.Logger
	// loud is set while etcd serves: what it logs at start is returned by Open,
	// and what it logs at its stop is noise.
	loud *atomic.Bool
}

// startEngine starts etcd in dir. When it fails and l has not ended, nothing is
// left running.
func startEngine(ctx context.Context, dir string, l *life, log *slog.Logger) (*engine, error) {
	loud := new(atomic.Bool)
	e := &engine{loud: loud, zap: newZap(log, loud, l)}
	started := l.guard(func() error { return e.start(ctx, dir, l) })
	select {
	case err := <-started:
		if err != nil {
			return nil, err
		}
		loud.Store(true)
		return e, nil
	case <-l.down:
		if strings.Contains(l.cause.Error(), unix.ENOSPC.Error()) { // etcd hands on the text only
			return nil, fmt.Errorf("%w: etcd can't open it: make room in its file system: %w", ErrNoSpace, l.cause)
		}
		return nil, fmt.Errorf("etcd can't open it: if it is damaged restore it from a backup: %w", l.cause)
	}
}

func (e *engine) start(ctx context.Context, dir string, l *life) error {
	if err := checkMember(dir, e.zap); err != nil {
		return err
	}
	etcd, err := embed.StartEtcd(e.config(dir))
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case <-etcd.Server.ReadyNotify():
	case <-l.down:
		return l.reason()
	case <-ctx.Done():
		etcd.Close()
		return fmt.Errorf("wait for etcd: %w", ctx.Err())
	}
	e.etcd, e.client = etcd, v3client.New(etcd.Server)
	if err := e.clearSpaceAlarm(ctx); err != nil {
		e.close()
		return err
	}
	return nil
}

// config tunes etcd for one member in one process. fsync stays on: a write is
// acknowledged when it is on disk.
func (e *engine) config(dir string) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = memberName, dir
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(e.zap)

	// No listener: requests are function calls.
	cfg.ListenPeerUrls, cfg.ListenClientUrls, cfg.AdvertiseClientUrls = nil, nil, nil
	cfg.EnableGRPCGateway = false
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "unix", Host: peerAddr}}
	cfg.InitialCluster = memberName + "=unix://" + peerAddr

	// A single member elects itself; these only decide how soon.
	cfg.TickMs, cfg.ElectionMs = 10, 50

	// History is for watchers that reconnect; an hour is plenty.
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	cfg.QuotaBackendBytes = 2 << 30
	cfg.BootstrapDefragThresholdMegabytes = 256
	// No follower has to catch up, so few entries are kept in memory.
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = 10_000, 100
	cfg.MaxWalFiles, cfg.MaxSnapFiles = 2, 2
	cfg.MaxTxnOps = maxTxnOps
	return cfg
}

// clearSpaceAlarm lifts the alarm that etcd raises when its quota is used up
// and that makes it refuse writes for ever, since nobody can reach this etcd
// with etcdctl. Start has compacted the file, and if that did not help the next
// write raises it again.
func (e *engine) clearSpaceAlarm(ctx context.Context) error {
	for _, alarm := range e.etcd.Server.Alarms() {
		if alarm.Alarm != etcdserverpb.AlarmType_NOSPACE {
			continue
		}
		if _, err := e.client.AlarmDisarm(ctx, (*clientv3.AlarmMember)(alarm)); err != nil {
			return fmt.Errorf("clear the space alarm: %w", err)
		}
	}
	return nil
}

// stop closes etcd within closeTimeout.
func (e *engine) stop() error {
	e.loud.Store(false)
	// The life of the store is over by now; a failure has to end this one.
	l := newLife(slog.New(slog.DiscardHandler))
	closed := l.guard(func() error { e.close(); return nil })
	select {
	case <-closed:
		return nil
	case <-l.down:
		return fmt.Errorf("stop etcd: %w", l.cause)
	case <-time.After(closeTimeout):
		return fmt.Errorf("stop etcd: not done after %v: does the disk answer?", closeTimeout)
	}
}

func (e *engine) close() {
	// It holds no connection; its only error says that it has been closed.
	_ = e.client.Close()
	e.etcd.Close()
}
