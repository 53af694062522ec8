package serving

import (
	"fmt"
	"time"
)

// daysLeft are the last days of a certificate at which its end is warned of
// anew.
var daysLeft = [...]int{1, 7, 30}

// backdate is by how much a certificate should have begun before machines see
// it: their clocks are wrong, by the hours of a time zone often. iPXE forgives
// 12.5 hours, firmware nothing.
const backdate = 24 * time.Hour

// warnings are what works, but not for all or not for long.
func (p *pair) warnings(at time.Time) []string {
	var all []string
	warn := func(format string, args ...any) { all = append(all, p.name+": "+fmt.Sprintf(format, args...)) }
	for i, c := range p.chain {
		days := daysLeft[:]
		if p.own && i == 0 {
			days = daysLeft[:2] // it is renewed before
		}
		if w := endWarning(c.NotAfter, at, days); w != "" {
			warn("%s %s", nameOf(c), w)
		}
		if i < len(p.chain)-1 && len(c.CRLDistributionPoints) > 0 {
			warn("%s names a revocation list (%s), which iPXE and firmware never read: revoking it does not stop them from trusting it", nameOf(c), c.CRLDistributionPoints[0])
		}
	}
	if p.hasSHA1() {
		warn("its chain is signed with SHA-1: iPXE takes it, Ignition and firmware refuse it; have it signed with SHA-256")
	}
	if begun := at.Sub(p.leaf().NotBefore); begun < backdate && !p.own {
		warn("%s is valid since %s only: machines whose clock is behind may refuse it; have it issued with a begin 24 hours ago", nameOf(p.leaf()), p.leaf().NotBefore.Format(time.DateTime))
	}
	return all
}

func endWarning(end, at time.Time, days []int) string {
	left := end.Sub(at)
	if left <= 0 {
		return fmt.Sprintf("has expired on %s: renew it", end.Format(time.DateTime))
	}
	for _, n := range days {
		if left <= time.Duration(n)*24*time.Hour {
			return fmt.Sprintf("expires in less than %d days, on %s: renew it", n, end.Format(time.DateTime))
		}
	}
	return ""
}

// kindWarning speaks of clients that a host name's certificates don't suit.
func kindWarning(pairs []*pair) string {
	kinds := map[string]bool{}
	for _, p := range pairs {
		kinds[p.keyType()] = true
	}
	switch {
	case !kinds[RSA]:
		return "there is no RSA certificate for this name: iPXE before 2.0.0 and old firmware cannot connect"
	case !kinds[ECDSA]:
		return "there is no ECDSA certificate for this name: each handshake costs several times as much as with one of P-256"
	default:
		return ""
	}
}
