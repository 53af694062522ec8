package serving

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Check returns the faults of given files that show without an authority: Open
// finds these, and those of the choice between them.
func Check(files []File, domain string, at time.Time) error {
	hosts := []host{{name: bootOf(domain), needed: true}}
	labels := []string{"ipxe"}
	for n := 2; n < 100; n++ { // generations that there may be
		labels = append(labels, fmt.Sprintf("ipxe-%d", n))
	}
	for _, label := range labels {
		hosts = append(hosts, host{name: label + "." + strings.ToLower(domain), needed: true})
	}
	for _, label := range others {
		hosts = append(hosts, host{name: label + "." + strings.ToLower(domain)})
	}
	var faults []error
	for _, f := range files {
		l := &loaded{file: f}
		if l.refresh(); l.err != nil {
			faults = append(faults, l.err)
			continue
		}
		faults = append(faults, uselessFault(l.pair, hosts, domain))
		for _, h := range hosts {
			if covered, _ := l.pair.covers(h.name); covered && h.needed {
				faults = append(faults, l.pair.faults(at)...)
				break
			}
		}
	}
	return errors.Join(faults...)
}

// Warnings are what of given files works, but not for all or not for long.
func Warnings(files []File, at time.Time) []string {
	var all []string
	for _, f := range files {
		l := &loaded{file: f}
		if l.refresh(); l.pair != nil {
			all = append(all, l.pair.warnings(at)...)
		}
	}
	return all
}
