package trusted

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nestboot/nestboot/pki"
)

// Certificate describes one registered certificate.
type Certificate struct {
	Subject     string
	Issuer      string
	Serial      string // lower-case hex
	Fingerprint pki.Digest
	Key         pki.Digest // SHA-256 of the public key (SPKI)
	NotBefore   time.Time
	NotAfter    time.Time
	// Trusted says that it is trusted by itself, and not only through another
	// one of the entry.
	Trusted bool
}

// List describes the revocation list of one issuer.
type List struct {
	Issuer     string
	ThisUpdate time.Time
	NextUpdate time.Time // zero: the list does not say, so it counts as stale
	Revoked    int
}

// Entry is what is known of one registered authority or pin.
type Entry struct {
	ID int64
	Spec
	Created      time.Time
	Certificates []Certificate
	NotAfter     time.Time // when it ends: by ExpiresAt or with the last certificate that is trusted; zero: never
	Uses         int64     // answers to machines that came by it
	LastUsed     *time.Time
	UsedBy       []Use // the last 100 pairs of certificate and machine, the latest first
	Others       []Use // of those that are not remembered: the last of each generation
	Lists        []List
	// Removing says that it accepts nobody any more, but that a restart would
	// forget this: the store takes no writes. Run tries again.
	Removing bool
	Faults   []string // what an operator should look at
}

// expirySoon is how long before an end it becomes a fault.
const expirySoon = 30 * 24 * time.Hour

func (all *catalogue) entry(m *member, now time.Time) Entry {
	e := Entry{ID: m.id, Spec: m.spec, Created: m.created, Removing: all.number(m.id) != m, NotAfter: m.end()}
	e.Allow, e.Machines = slices.Clone(e.Allow), slices.Clone(e.Machines)
	e.Uses, e.UsedBy, e.Others = m.uses.all()
	if len(e.UsedBy) > 0 {
		last := e.UsedBy[0].At
		e.LastUsed = &last
	}
	for _, c := range m.certs {
		e.Certificates = append(e.Certificates, Certificate{
			Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: pki.SerialOf(c),
			Fingerprint: sha256.Sum256(c.Raw), Key: sha256.Sum256(c.RawSubjectPublicKeyInfo),
			NotBefore: c.NotBefore, NotAfter: c.NotAfter, Trusted: slices.Contains(m.anchors, c),
		})
	}
	for _, l := range m.sortedLists() {
		e.Lists = append(e.Lists, List{Issuer: l.issuer, ThisUpdate: l.this, NextUpdate: l.next, Revoked: len(l.revoked)})
	}
	e.Faults = all.faults(m, now, e.Removing)
	return e
}

// sortedLists are the revocation lists by the names of their issuers.
func (m *member) sortedLists() []*list {
	return slices.SortedFunc(maps.Values(*m.lists.Load()), func(a, b *list) int { return strings.Compare(a.issuer, b.issuer) })
}

// end is when the entry can accept nobody any more. A key outlives the
// certificate that it was registered with.
func (m *member) end() time.Time {
	var end time.Time
	for _, c := range m.anchors {
		if c.NotAfter.After(end) && m.spec.Match != MatchKey {
			end = c.NotAfter
		}
	}
	if e := m.spec.ExpiresAt; e != nil && (end.IsZero() || e.Before(end)) {
		end = *e
	}
	return end
}

func (all *catalogue) faults(m *member, now time.Time, removing bool) []string {
	var faults []string
	add := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	if removing {
		add("removed, but a restart would forget that until it can be written down: make room for the store")
	}
	if m.damaged != nil {
		add("%s", m.damaged)
	}
	for _, c := range m.certs {
		switch {
		case m.spec.Match == MatchKey:
		case now.After(c.NotAfter):
			add("%s expired at %s", nameOf(c), stamp(c.NotAfter))
		case now.After(c.NotAfter.Add(-expirySoon)):
			add("%s expires at %s", nameOf(c), stamp(c.NotAfter))
		case now.Before(c.NotBefore):
			add("%s is valid from %s: is the clock right?", nameOf(c), stamp(c.NotBefore))
		}
	}
	if e := m.spec.ExpiresAt; e != nil && now.After(*e) {
		add("its registration ended at %s", stamp(*e))
	}
	for _, other := range all.live {
		if other != m && slices.ContainsFunc(m.anchors, func(c *x509.Certificate) bool { return slices.Contains(other.anchors, c) }) {
			add("%s trusts the same certificate: a machine boots by whichever of the two lets it in%s, and removing one leaves the other", other.title(), m.bypassed(other))
		}
	}
	return append(faults, m.listFaults(now)...)
}

// listFaults is what is wrong with the revocation lists.
func (m *member) listFaults(now time.Time) []string {
	if m.spec.CRL == nil || m.damaged != nil {
		return nil
	}
	var faults []string
	if err := m.source.failed(); err != nil {
		faults = append(faults, "revocation list: "+err.Error())
	}
	means := "machines of that issuer are refused"
	if m.spec.CRL.Stale == StaleAccept {
		means = "machines are accepted all the same, as configured"
	}
	for _, reason := range m.staleReasons(now) {
		faults = append(faults, "no current revocation list: "+reason+"; "+means)
	}
	for _, l := range m.sortedLists() {
		if l.endsSoon(now) {
			faults = append(faults, fmt.Sprintf("the revocation list of %s ends at %s and there is no newer one yet", l.issuer, stamp(l.next)))
		}
	}
	return faults
}

// bypassed says what of an entry's limits another one does not have.
func (m *member) bypassed(other *member) string {
	var limits []string
	if len(m.spec.Allow) > 0 && len(other.spec.Allow) == 0 {
		limits = append(limits, "names")
	}
	if len(m.spec.Machines) > 0 && len(other.spec.Machines) == 0 {
		limits = append(limits, "machines")
	}
	if m.spec.CRL != nil && other.spec.CRL == nil {
		limits = append(limits, "revocation list")
	}
	if len(limits) == 0 {
		return ""
	}
	return ", past this one's " + strings.Join(limits, ", ")
}

// stale reports whether the list of an issuer has ended, or whether there is none
// at all, or none of one that issued another.
func (m *member) stale(now time.Time) bool { return len(m.staleReasons(now)) > 0 }

// staleReasons says of which issuers there is no current list, and why.
func (m *member) staleReasons(now time.Time) (reasons []string) {
	if m.spec.CRL == nil {
		return nil
	}
	lists := m.sortedLists()
	for _, l := range lists {
		if l.stale(now) {
			reasons = append(reasons, l.endReason())
		}
	}
	if len(lists) == 0 {
		return []string{"none was ever read"}
	}
	if issuer := m.unlisted(); issuer != nil {
		reasons = append(reasons, "there is none of "+nameOf(issuer))
	}
	return reasons
}
