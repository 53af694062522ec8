// Package inventory knows the machines: those that an operator configured and
// those that have shown up. It keeps what they did as a journal of events, and
// ties the events of one boot together.
//
// It decides nothing (package boot does) and serves nothing. Begin at
// Machines and Journal.
package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/store"
)

// Keys in the store. The index gives each machine a number for life.
const (
	machinePrefix = "machines/"
	lastIDKey     = "machine-ids/last"
)

// maxNames bounds the names that are remembered beside the register.
const maxNames = 65_536

// Status of a machine as operators see it.
const (
	StatusBooting = "booting" // it was sent an image
	StatusReady   = "ready"   // it has phoned home
	StatusWaiting = "waiting" // it asks, and is told to wait
	StatusRefused = "refused" // it asks, and may not boot
	StatusLocal   = "local"   // it was sent to its local disk
)

// Record is a machine that has been seen.
type Record struct {
	ID        int64         `json:"id"`
	UUID      string        `json:"uuid"`
	Name      string        `json:"name"`
	Status    string        `json:"status"`
	MAC       string        `json:"mac"`
	Serial    string        `json:"serial"`
	Arch      boot.Arch     `json:"arch"`
	Platform  boot.Platform `json:"platform"`
	Addr      string        `json:"addr"`
	Set       string        `json:"set"` // artifact set that it came with
	Image     string        `json:"image"`
	LastBoot  string        `json:"last_boot"` // id
	FirstSeen time.Time     `json:"first_seen"`
	LastSeen  time.Time     `json:"last_seen"`
}

// Machines is the register of machines that have been seen.
type Machines struct {
	store  *store.Store
	mirror *store.Mirror

	// names are the host names that machines were last told, so that a machine
	// gets its Ignition config even when it could not be written down.
	mu    sync.Mutex
	names map[string]string // by UUID
}

// OpenMachines reads the register. It is kept up to date for as long as s is
// open.
func OpenMachines(s *store.Store) (*Machines, error) {
	m, err := s.Mirror(context.Background(), machinePrefix)
	if err != nil {
		return nil, fmt.Errorf("read machines: %w", err)
	}
	return &Machines{store: s, mirror: m, names: map[string]string{}}, nil
}

// Name is the host name that a machine was last told.
func (m *Machines) Name(uuid string) (string, bool) {
	m.mu.Lock()
	name, ok := m.names[uuid]
	m.mu.Unlock()
	if ok {
		return name, true
	}
	e, ok := m.mirror.Get(machinePrefix + uuid)
	if !ok {
		return "", false
	}
	rec, err := decode(e.Value)
	return rec.Name, err == nil && rec.Name != ""
}

// remember keeps a name in memory. The register has it too unless it cannot be
// written, so forgetting all of them now and then costs little.
func (m *Machines) remember(uuid, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.names) >= maxNames {
		clear(m.names)
	}
	m.names[uuid] = name
}

// Saw writes down that a machine asked to boot and what it was told. A machine
// that was never seen gets the next number.
func (m *Machines) Saw(ctx context.Context, r boot.Request, p boot.Plan, bootID string, now time.Time) error {
	change := func(rec *Record) {
		rec.UUID, rec.Name, rec.Status = r.UUID, p.Machine.Name, status(p.Action)
		rec.MAC, rec.Serial, rec.Arch, rec.Platform = r.MAC, r.Serial, r.Arch, r.Platform
		rec.Addr, rec.Set, rec.Image = r.Addr.String(), r.Credential.Set, p.Image.Name
		rec.LastBoot, rec.LastSeen = bootID, now.UTC()
		if rec.FirstSeen.IsZero() {
			rec.FirstSeen = now.UTC()
		}
	}
	m.remember(r.UUID, p.Machine.Name)
	if _, ok := m.mirror.Get(machinePrefix + r.UUID); ok {
		return m.update(ctx, r.UUID, change)
	}
	return m.create(ctx, r.UUID, change)
}

// Done writes down that a machine has phoned home.
func (m *Machines) Done(ctx context.Context, uuid string, now time.Time) error {
	return m.update(ctx, uuid, func(rec *Record) { rec.Status, rec.LastSeen = StatusReady, now.UTC() })
}

// List is all machines that have been seen, in the order of their UUIDs, from
// memory.
func (m *Machines) List() ([]Record, error) {
	entries := m.mirror.List(machinePrefix)
	out := make([]Record, 0, len(entries))
	for _, e := range entries {
		rec, err := decode(e.Value)
		if err != nil {
			return nil, fmt.Errorf("machine %s: %w", e.Key, err)
		}
		out = append(out, rec)
	}
	return out, nil
}

// create allots a number and writes the machine in one transaction.
func (m *Machines) create(ctx context.Context, uuid string, change func(*Record)) error {
	for range 16 {
		last, rev, err := m.lastID(ctx)
		if err != nil {
			return err
		}
		rec := Record{ID: last + 1}
		change(&rec)
		value, err := json.Marshal(rec)
		if err != nil {
			return fmt.Errorf("encode machine %s: %w", uuid, err)
		}
		_, err = m.store.Commit(ctx, store.Txn{
			If: []store.Condition{store.Unchanged(lastIDKey, rev), store.Unchanged(machinePrefix+uuid, 0)},
			Then: []store.Op{
				store.Set(lastIDKey, strconv.AppendInt(nil, rec.ID, 10)),
				store.Set(machinePrefix+uuid, value),
			},
		})
		if err == nil || !errors.Is(err, store.ErrConflict) {
			return wrap(uuid, err)
		}
		// Somebody else took the number, or registered this machine first.
		if _, err := m.store.Get(ctx, machinePrefix+uuid); err == nil {
			return m.update(ctx, uuid, change)
		}
	}
	return fmt.Errorf("register machine %s: too many machines register at once", uuid)
}

func (m *Machines) lastID(ctx context.Context) (id, revision int64, err error) {
	e, err := m.store.Get(ctx, lastIDKey)
	if errors.Is(err, store.ErrNotFound) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read last machine number: %w", err)
	}
	if id, err = strconv.ParseInt(string(e.Value), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("last machine number %q is damaged: %w", e.Value, err)
	}
	return id, e.Revision, nil
}

func (m *Machines) update(ctx context.Context, uuid string, change func(*Record)) error {
	_, err := m.store.Update(ctx, machinePrefix+uuid, func(old []byte) ([]byte, error) {
		if old == nil {
			return nil, fmt.Errorf("machine %s is not registered", uuid)
		}
		rec, err := decode(old)
		if err != nil {
			return nil, err
		}
		change(&rec)
		return json.Marshal(rec)
	})
	return wrap(uuid, err)
}

func wrap(uuid string, err error) error {
	if err != nil {
		return fmt.Errorf("write machine %s: %w", uuid, err)
	}
	return nil
}

func decode(value []byte) (Record, error) {
	var rec Record
	if err := json.Unmarshal(value, &rec); err != nil {
		return Record{}, fmt.Errorf("decode machine: %w", err)
	}
	return rec, nil
}

func status(a boot.Action) string {
	switch a {
	case boot.ActBoot:
		return StatusBooting
	case boot.ActLocal:
		return StatusLocal
	case boot.ActRefuse:
		return StatusRefused
	}
	return StatusWaiting
}
