package trusted

import (
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nestboot/nestboot/pki"
)

// catalogue is what there is at a moment. It never changes: a change makes
// another.
type catalogue struct {
	live []*member // in the order of their numbers
	gone []grave   // in the order of their removal
	byID map[int64]*member
}

// member is one entry. What is registered never changes.
type member struct {
	id      int64
	spec    Spec
	created time.Time
	damaged error // why its record could not be read; it accepts nobody
	material

	lists  atomic.Pointer[lists] // of an authority with a CRL; not nil
	source source
	uses   uses

	wasStale, wasSoon bool // what Run has said last; nobody else touches them
}

// grave is an entry that was removed. It is kept for a while, so that its
// machines' refusals can say so.
type grave struct {
	*member
	at    time.Time
	saved bool // the store knows
}

func newMember(id int64, spec Spec, created time.Time, made material) *member {
	m := &member{id: id, spec: spec, created: created, material: made}
	m.lists.Store(&lists{})
	return m
}

// title is what messages call the entry.
func (m *member) title() string { return fmt.Sprintf("%s %s", m.spec.Kind, m.spec.Name) }

func newCatalogue(live []*member, gone []grave) *catalogue {
	c := &catalogue{live: live, gone: gone, byID: map[int64]*member{}}
	for _, m := range live {
		c.byID[m.id] = m
	}
	return c
}

func (all *catalogue) with(m *member) *catalogue {
	for _, certs := range [][]*x509.Certificate{m.certs, m.anchors} {
		for i, c := range certs {
			certs[i] = all.interned(c)
		}
	}
	return newCatalogue(append(slices.Clip(all.live), m), all.gone)
}

// without buries an entry, or notes of a buried one whether that was saved.
func (all *catalogue) without(m *member, at time.Time, saved bool) *catalogue {
	live := slices.DeleteFunc(slices.Clone(all.live), func(x *member) bool { return x == m })
	gone := slices.Clone(all.gone)
	if i := slices.IndexFunc(gone, func(g grave) bool { return g.member == m }); i >= 0 {
		gone[i].saved = saved
	} else {
		gone = append(gone, grave{member: m, at: at, saved: saved})
	}
	return newCatalogue(live, gone)
}

func (all *catalogue) forget(ids []int64) *catalogue {
	return newCatalogue(all.live, slices.DeleteFunc(slices.Clone(all.gone), func(g grave) bool { return slices.Contains(ids, g.id) }))
}

// number returns a live entry.
func (all *catalogue) number(id int64) *member { return all.byID[id] }

// find returns an entry that is live or whose removal was not saved yet.
func (all *catalogue) find(id int64) *member {
	if m := all.byID[id]; m != nil {
		return m
	}
	for _, g := range all.gone {
		if g.id == id && !g.saved {
			return g.member
		}
	}
	return nil
}

// interned returns the registered certificate that equals c, or c. So equal
// ones are the same, and each signature is checked once per search however
// often its authority is registered.
func (all *catalogue) interned(c *x509.Certificate) *x509.Certificate {
	for _, m := range all.live {
		for _, known := range m.certs {
			if known.Equal(c) {
				return known
			}
		}
	}
	for _, g := range all.gone {
		for _, known := range g.certs {
			if known.Equal(c) {
				return known
			}
		}
	}
	return c
}

// replace is the only place where the catalogue changes.
func (t *Trusted) replace(change func(*catalogue) *catalogue) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all.Store(change(t.all.Load()))
	t.proofs.reset() // they are about the former one
}

// maxUsers is how many users an entry remembers: the last ones. Of what falls out
// the generation stays known, because machines that still ask its host name need
// it.
const maxUsers = 100

// Use is the last time that a machine came with a certificate.
type Use struct {
	Subject string    `json:"subject"` // what the certificate calls itself
	Machine string    `json:"machine"` // UUID
	At      time.Time `json:"at"`
	// Generation is that of the trust root that it came by; 0: not known.
	Generation int `json:"generation,omitzero"`
}

// uses are known at once and written by Run, so that no machine waits for a
// disk.
type uses struct {
	mu     sync.Mutex
	count  int64
	list   []Use // the latest first
	others []Use // of those that fell out of list: the last of each generation
	dirty  bool
}

func (u *uses) add(use Use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.list = slices.DeleteFunc(u.list, func(x Use) bool { return x.Machine == use.Machine && x.Subject == use.Subject })
	u.list = slices.Insert(u.list, 0, use)
	if len(u.list) > maxUsers {
		u.forget(u.list[maxUsers])
		u.list = u.list[:maxUsers]
	}
	u.count++
	u.dirty = true
}

// forget keeps of a use that fell out what its generation was.
func (u *uses) forget(out Use) {
	if out.Generation == 0 {
		return
	}
	i := slices.IndexFunc(u.others, func(o Use) bool { return o.Generation == out.Generation })
	if i < 0 {
		u.others = append(u.others, Use{Generation: out.Generation})
		i = len(u.others) - 1
	}
	if out.At.After(u.others[i].At) {
		u.others[i].At = out.At
	}
}

func (u *uses) all() (count int64, list, others []Use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.count, slices.Clone(u.list), slices.Clone(u.others)
}

// Used takes down that a machine was answered which came with a certificate of
// an entry, to the host name of a generation.
func (t *Trusted) Used(id int64, subject, machine string, generation int, at time.Time) {
	if m := t.all.Load().number(id); m != nil {
		m.uses.add(Use{Subject: subject, Machine: machine, At: at.UTC(), Generation: generation})
	}
}

// kindKnown reports whether a stored kind is one of ours.
func kindKnown(k pki.Kind) bool { return k == pki.KindCA || k == pki.KindPin }
