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
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
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

// maxMachines bounds the register: whoever holds a set's key can make up UUIDs.
const maxMachines = 100_000

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
	ID       int64         `json:"id"`
	UUID     string        `json:"uuid"`
	Name     string        `json:"name"`
	Status   string        `json:"status"`
	MAC      string        `json:"mac"`
	Serial   string        `json:"serial"`
	Arch     boot.Arch     `json:"arch"`
	Platform boot.Platform `json:"platform"`
	Addr     string        `json:"addr"`
	Set      string        `json:"set"` // artifact set that it came with
	// Credential is how it proved itself, as boot.Credential.String has it.
	Credential string    `json:"credential,omitempty"`
	Image      string    `json:"image"`
	LastBoot   string    `json:"last_boot"` // id
	FirstSeen  time.Time `json:"first_seen"`
	LastSeen   time.Time `json:"last_seen"`
}

// Machines is the register of machines that have been seen. What a machine
// does is known at once and written by Run, so that no machine waits for a
// disk; while the store refuses to write, it is kept and written later.
type Machines struct {
	store  *store.Store
	mirror *store.Mirror
	log    *slog.Logger
	wake   chan struct{}

	mu      sync.Mutex
	pending map[string]Record // not written yet, by UUID
	count   int               // of all machines
}

// OpenMachines reads the register. It is kept up to date for as long as s is
// open.
func OpenMachines(s *store.Store, log *slog.Logger) (*Machines, error) {
	mirror, err := s.Mirror(context.Background(), machinePrefix)
	if err != nil {
		return nil, fmt.Errorf("read machines: %w", err)
	}
	m := &Machines{store: s, mirror: mirror, log: log, wake: make(chan struct{}, 1), pending: map[string]Record{}}
	list, err := m.List()
	if err != nil {
		return nil, err
	}
	m.count = len(list)
	return m, nil
}

// Get is what is known of a machine.
func (m *Machines) Get(uuid string) (Record, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.get(uuid)
}

func (m *Machines) get(uuid string) (Record, bool) {
	if rec, ok := m.pending[uuid]; ok {
		return rec, true
	}
	e, ok := m.mirror.Get(machinePrefix + uuid)
	if !ok {
		return Record{}, false
	}
	rec, err := decode(e.Value)
	return rec, err == nil
}

// Saw takes down that a machine asked to boot and what it was told. Above
// maxMachines an unknown one is not registered, which is an error; it boots
// all the same.
func (m *Machines) Saw(r boot.Request, p boot.Plan, bootID string, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	rec, known := m.get(r.UUID)
	if !known && m.count >= maxMachines {
		return fmt.Errorf("machine %s is not registered: there are %d already", r.UUID, m.count)
	}
	if !known {
		m.count++
		rec.FirstSeen = now.UTC()
	}
	rec.UUID, rec.Name, rec.Status = r.UUID, p.Machine.Name, status(p.Action)
	rec.MAC, rec.Serial, rec.Arch, rec.Platform = r.MAC, r.Serial, r.Arch, r.Platform
	rec.Addr, rec.Set, rec.Credential, rec.Image = r.Addr.String(), r.Credential.Set, r.Credential.String(), p.Image.Name
	rec.LastBoot, rec.LastSeen = bootID, now.UTC()
	m.put(rec)
	return nil
}

// Done takes down that a machine has phoned home from a boot. A report of an
// earlier boot than its last changes nothing.
func (m *Machines) Done(uuid, bootID string, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rec, known := m.get(uuid)
	if !known || rec.LastBoot != bootID || rec.Status == StatusReady {
		return
	}
	rec.Status, rec.LastSeen = StatusReady, now.UTC()
	m.put(rec)
}

func (m *Machines) put(rec Record) {
	m.pending[rec.UUID] = rec
	select {
	case m.wake <- struct{}{}:
	default: // Run knows already
	}
}

// List is all machines that have been seen, in the order of their UUIDs, from
// memory. One that could not be written yet has no number.
func (m *Machines) List() ([]Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	byUUID := maps.Clone(m.pending)
	for _, e := range m.mirror.List(machinePrefix) {
		rec, err := decode(e.Value)
		if err != nil {
			return nil, fmt.Errorf("machine %s: %w", e.Key, err)
		}
		if _, newer := byUUID[rec.UUID]; !newer {
			byUUID[rec.UUID] = rec
		}
	}
	out := slices.Collect(maps.Values(byUUID))
	slices.SortFunc(out, func(a, b Record) int { return strings.Compare(a.UUID, b.UUID) })
	return append([]Record{}, out...), nil
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
