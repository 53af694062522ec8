package store

import (
	"context"
	"log/slog"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newZap returns a logger for etcd that writes to log and that ends l, and the
// goroutine, where zap would end the process.
func newZap(log *slog.Logger, loud *atomic.Bool, l *life) *zap.Logger {
	return zap.New(&zapCore{log: log, loud: loud}, zap.WithFatalHook(l), zap.WithPanicHook(l))
}

// zapCore hands etcd's log entries to slog.
type zapCore struct {
	log    *slog.Logger
	loud   *atomic.Bool
	fields []zapcore.Field
}

// level maps etcd's levels: its information is for etcd's developers, and while
// it starts and stops so are its warnings and errors.
func (c *zapCore) level(e zapcore.Entry) slog.Level {
	switch {
	case e.Level < zapcore.WarnLevel, !c.loud.Load(), firstStartNoise(e.Message):
		return slog.LevelDebug
	case e.Level == zapcore.WarnLevel:
		return slog.LevelWarn
	default:
		return slog.LevelError
	}
}

// firstStartNoise names what etcd 3.6.10 reports at its very first start, when
// it asks its database for its version before it has written it. It asks again.
func firstStartNoise(message string) bool {
	return message == "Failed to detect schema version" || message == "failed to update storage version"
}

// Enabled is part of zapcore.Core. etcd's own debug level is off whatever ours
// is, because it writes keys and values into the log.
func (c *zapCore) Enabled(l zapcore.Level) bool {
	return l >= zapcore.InfoLevel
}

// With is part of zapcore.Core.
func (c *zapCore) With(fields []zapcore.Field) zapcore.Core {
	return &zapCore{log: c.log, loud: c.loud, fields: append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

// Check is part of zapcore.Core.
func (c *zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) && c.log.Enabled(context.Background(), c.level(e)) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write is part of zapcore.Core.
func (c *zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(c.fields[:len(c.fields):len(c.fields)], fields...) {
		f.AddTo(enc)
	}
	c.log.LogAttrs(context.Background(), c.level(e), "storage engine",
		slog.String("etcd", e.Message), slog.Any("detail", enc.Fields))
	return nil
}

// Sync is part of zapcore.Core.
func (c *zapCore) Sync() error { return nil }
