package inventory

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/store"
)

const (
	eventPrefix = "events/"
	// keepEvents is how many events are kept; about a thousand boots.
	keepEvents = 20_000
	// trimBatch is how many of the oldest are deleted at a time.
	trimBatch = 1_000
	// queueLength is how many events may wait for the store. When it cannot
	// keep up or is gone, further ones are still logged, counted and streamed.
	queueLength = 8_192
	writeBatch  = 60 // set and delete together stay below etcd's 128 operations
	writeEvery  = 200 * time.Millisecond
	// listenerLength is how far a listener may fall behind before it is cut off.
	listenerLength = 1_024
	// Anybody can cause events without being a known machine. namelessBurst of
	// them, more than a large site makes when its power comes back, and then
	// namelessRate a second are recorded, so that a flood does not push real
	// boots out (T4); what is over that is only counted.
	namelessBurst = keepEvents / 2
	namelessRate  = 5
	// maxText bounds what a client can put into one event.
	maxText = 400
)

// Journal records what happens on the way of each machine: every event is
// logged, counted, streamed to listeners and, in batches, stored. Recording
// never blocks a boot.
type Journal struct {
	Boots *Boots

	store    *store.Store
	log      *slog.Logger
	observe  func(boot.Event)
	queue    chan boot.Event
	nameless *rate.Limiter // of events that belong to no known machine

	mu        sync.Mutex
	lastID    int64
	recent    []boot.Event // the last keepEvents, oldest first
	listeners map[chan boot.Event]struct{}
	expired   []int64 // numbers of events that were forgotten but are still stored
	dropped   int64   // events that are not stored, since it was last said
}

// OpenJournal reads the stored events. observe is called with each new one
// and must not block; it may be nil.
func OpenJournal(ctx context.Context, s *store.Store, log *slog.Logger, observe func(boot.Event)) (*Journal, error) {
	entries, err := s.List(ctx, eventPrefix)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	j := &Journal{
		Boots: NewBoots(), store: s, log: log, observe: observe,
		queue: make(chan boot.Event, queueLength), listeners: map[chan boot.Event]struct{}{},
		nameless: rate.NewLimiter(namelessRate, namelessBurst),
	}
	for _, e := range entries {
		var ev boot.Event
		if err := json.Unmarshal(e.Value, &ev); err != nil {
			return nil, fmt.Errorf("event %s is damaged: %w", e.Key, err)
		}
		j.recent = append(j.recent, ev)
		j.lastID = ev.ID
	}
	return j, nil
}

// Record takes an event at the given time. An event without a boot is tied to
// the one that goes on at its address.
func (j *Journal) Record(e boot.Event, now time.Time) {
	e.Time = now.UTC()
	stranger := e.Machine == "" // an address proves nothing, whoever was seen there
	if e.Boot == "" && e.Addr.IsValid() {
		if e.Stage == boot.StageTFTPRequest || e.Stage == boot.StageArtifact {
			j.Boots.Restart(e.Addr)
		}
		id, machine, mac := j.Boots.At(e.Addr, now)
		e.Boot = id
		if e.Machine == "" {
			e.Machine, e.MAC = machine, mac
		}
	}
	for _, s := range []*string{&e.Boot, &e.Machine, &e.MAC, &e.Name, &e.Credential, &e.Code, &e.Error, &e.Detail} {
		*s = clip(*s)
	}
	if j.observe != nil {
		j.observe(e)
	}
	if stranger && !j.nameless.AllowN(now, 1) {
		j.countDropped()
		return
	}
	j.publish(&e)
	j.logEvent(e)
}

// clip bounds a text that a client may have chosen.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "..."
}

func (j *Journal) countDropped() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.dropped++
}

// publish numbers the event and hands it to memory, listeners and the store's
// queue. Numbers ascend for ever, also over a crash that lost the last batch:
// they are never below the time in microseconds.
func (j *Journal) publish(e *boot.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lastID = max(j.lastID+1, e.Time.UnixMicro())
	e.ID = j.lastID
	j.recent = append(j.recent, *e)
	if len(j.recent) >= keepEvents+trimBatch {
		for _, old := range j.recent[:trimBatch] {
			j.expired = append(j.expired, old.ID)
		}
		j.recent = append([]boot.Event(nil), j.recent[trimBatch:]...)
	}
	for c := range j.listeners {
		select {
		case c <- *e:
		default:
			delete(j.listeners, c)
			close(c)
		}
	}
	select {
	case j.queue <- *e:
	default:
		j.dropped++
	}
}

// Since returns the kept events after the one with the given number, oldest
// first.
func (j *Journal) Since(id int64) []boot.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.since(id)
}

func (j *Journal) since(id int64) []boot.Event {
	i := len(j.recent)
	for i > 0 && j.recent[i-1].ID > id {
		i--
	}
	return append([]boot.Event(nil), j.recent[i:]...)
}

// Follow returns the kept events after id and a channel of those that come,
// without a gap between. The channel is closed when the listener falls too far
// behind; stop ends it.
func (j *Journal) Follow(id int64) (past []boot.Event, next <-chan boot.Event, stop func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := make(chan boot.Event, listenerLength)
	j.listeners[c] = struct{}{}
	return j.since(id), c, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if _, ok := j.listeners[c]; ok {
			delete(j.listeners, c)
			close(c)
		}
	}
}

// Run stores events until ctx ends, then stores what is left and returns.
func (j *Journal) Run(ctx context.Context) {
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			j.write(last)
			return
		case <-tick.C:
			j.write(ctx)
		}
	}
}

// write stores all that waits, a transaction per writeBatch events.
func (j *Journal) write(ctx context.Context) {
	if n := j.takeDropped(); n > 0 {
		j.log.WarnContext(ctx, "events were not recorded: there were too many at once", "count", n)
	}
	for {
		ops := j.takeBatch()
		if len(ops) == 0 {
			return
		}
		if _, err := j.store.Commit(ctx, store.Txn{Then: ops}); err != nil {
			j.log.WarnContext(ctx, "events were not stored", "count", len(ops), "err", err)
			return
		}
	}
}

func (j *Journal) takeBatch() []store.Op {
	ops := j.takeExpired()
	for range writeBatch {
		select {
		case e := <-j.queue:
			value, err := json.Marshal(e)
			if err != nil { // every field can be encoded
				j.log.Error("event was not encoded", "stage", e.Stage, "err", err)
				continue
			}
			ops = append(ops, store.Set(eventKey(e.ID), value))
		default:
			return ops
		}
	}
	return ops
}

func (j *Journal) takeExpired() []store.Op {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := min(len(j.expired), writeBatch)
	var ops []store.Op
	for _, id := range j.expired[:n] {
		ops = append(ops, store.Remove(eventKey(id)))
	}
	j.expired = j.expired[n:]
	return ops
}

func (j *Journal) takeDropped() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := j.dropped
	j.dropped = 0
	return n
}

// logEvent writes the one line per stage from which a failed boot can be told.
func (j *Journal) logEvent(e boot.Event) {
	attrs := []slog.Attr{slog.String("stage", string(e.Stage)), slog.String("boot", e.Boot), slog.String("addr", e.Addr.String())}
	for _, a := range []struct{ key, value string }{
		{"machine", e.Machine}, {"mac", e.MAC}, {"name", e.Name}, {"credential", e.Credential}, {"code", e.Code}, {"detail", e.Detail}, {"err", e.Error},
	} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.key, a.value))
		}
	}
	if e.Bytes > 0 {
		attrs = append(attrs, slog.Int64("bytes", e.Bytes))
	}
	if e.Duration > 0 {
		attrs = append(attrs, slog.Duration("dur", e.Duration))
	}
	level := slog.LevelInfo
	if e.Failed() {
		level = slog.LevelWarn
	}
	j.log.LogAttrs(context.Background(), level, "boot stage", attrs...)
}

func eventKey(id int64) string { return fmt.Sprintf("%s%020d", eventPrefix, id) }
