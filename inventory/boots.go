package inventory

import (
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"sync"
	"time"
)

// A boot that nobody has heard of for idleBoot is over: longer than the
// slowest download of an image. At most maxBoots are remembered, because
// anybody can make one with a single UDP packet.
const (
	idleBoot = time.Hour
	maxBoots = 8192
)

// Boots gives the steps of one boot one id. Firmware that asks for a file by
// TFTP says nothing of who it is, so its first step opens a boot for its
// address, and the machine that later identifies itself from that address
// takes it over. The id is a name, not a secret.
type Boots struct {
	mu     sync.Mutex
	byAddr map[netip.Addr]*liveBoot
}

type liveBoot struct {
	id      string
	machine string // UUID, once known
	mac     string
	started bool // it was sent an image
	seen    time.Time
}

// NewBoots is an empty table.
func NewBoots() *Boots { return &Boots{byAddr: map[netip.Addr]*liveBoot{}} }

// At is the boot that goes on at an address, opened if there is none, and the
// machine if it is known.
func (b *Boots) At(addr netip.Addr, now time.Time) (id, machine, mac string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.live(addr, now)
	if l == nil {
		l = b.put(addr, now)
	}
	l.seen = now
	return l.id, l.machine, l.mac
}

// Begin is the boot of an identified machine that asks what to do. It goes on
// with the boot at its address unless that one belongs to another machine or
// was sent an image already: then the machine has started over.
func (b *Boots) Begin(addr netip.Addr, machine, mac string, now time.Time) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.live(addr, now)
	if l == nil || l.started || (l.machine != "" && l.machine != machine) {
		l = b.put(addr, now)
	}
	l.machine, l.mac, l.seen = machine, mac, now
	return l.id
}

// Started marks that the boot at an address was sent an image.
func (b *Boots) Started(addr netip.Addr, id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.byAddr[addr]; l != nil && l.id == id {
		l.started = true
	}
}

// Restart ends the boot at an address when it was sent an image: the firmware
// there has begun anew.
func (b *Boots) Restart(addr netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.byAddr[addr]; l != nil && l.started {
		delete(b.byAddr, addr)
	}
}

func (b *Boots) live(addr netip.Addr, now time.Time) *liveBoot {
	l := b.byAddr[addr]
	if l != nil && now.Sub(l.seen) > idleBoot {
		delete(b.byAddr, addr)
		return nil
	}
	return l
}

func (b *Boots) put(addr netip.Addr, now time.Time) *liveBoot {
	if len(b.byAddr) >= maxBoots {
		b.drop(now)
	}
	l := &liveBoot{id: newID(), seen: now}
	b.byAddr[addr] = l
	return l
}

// drop makes room for a quarter of the table: idle boots go first, then
// unidentified ones, so that spoofed packets push out each other before they
// push out a machine.
func (b *Boots) drop(now time.Time) {
	idle := func(l *liveBoot) bool { return now.Sub(l.seen) > idleBoot }
	unknown := func(l *liveBoot) bool { return l.machine == "" }
	anyone := func(*liveBoot) bool { return true }
	for _, expendable := range []func(*liveBoot) bool{idle, unknown, anyone} {
		for a, l := range b.byAddr {
			if len(b.byAddr) <= maxBoots*3/4 {
				return
			}
			if expendable(l) {
				delete(b.byAddr, a)
			}
		}
	}
}

// newID is 64 random bits: unique enough among the boots of one installation
// and short enough to be read from a console.
func newID() string {
	b := make([]byte, 8)
	rand.Read(b)
	return hex.EncodeToString(b)
}
