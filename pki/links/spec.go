package links

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/pki"
)

// The kinds of links.
const (
	Chain = pki.KindURL  // iPXE chain URLs
	UEFI  = pki.KindUEFI // UEFI HTTP Boot URLs
)

func kinds() []pki.Kind { return []pki.Kind{Chain, UEFI} }

// The protocols over which a token may be shown.
const (
	HTTPS = "https"
	HTTP  = "http"
)

// Spec is what an operator asks for. Nothing of it can be changed afterwards.
type Spec struct {
	Kind      pki.Kind   `json:"kind"`
	Name      string     `json:"name"`              // 1 to 42 printable characters
	Set       int64      `json:"set,omitzero"`      // number of the artifact set; UEFI only
	ExpiresAt *time.Time `json:"expires_at"`        // nil: never
	Protocols []string   `json:"protocols"`         // of HTTPS and HTTP; empty: HTTPS
	Machines  []string   `json:"machines,omitzero"` // UUIDs that may boot with it, Chain only; empty: any
}

// Codes of a Fault.
const (
	CodeInvalid = "invalid_value"
	CodeTaken   = "value_already_exists"
)

// Fault is what is wrong with one field, named as in JSON.
type Fault struct{ Field, Code, Message string }

// Invalid is the error for a request that cannot be carried out as it stands.
type Invalid struct{ Faults []Fault }

func (e *Invalid) Error() string {
	var all []string
	for _, f := range e.Faults {
		all = append(all, f.Field+": "+f.Message)
	}
	return strings.Join(all, "; ")
}

func (e *Invalid) add(field, format string, a ...any) {
	e.Faults = append(e.Faults, Fault{field, CodeInvalid, fmt.Sprintf(format, a...)})
}

func (e *Invalid) orNil() error {
	if len(e.Faults) == 0 {
		return nil
	}
	return e
}

const (
	maxName     = 42 // shorter than a token, which logs leave out
	maxMachines = 1000
)

// complete brings s to the form in which it is kept.
func (s Spec) complete() Spec {
	if len(s.Protocols) == 0 {
		s.Protocols = []string{HTTPS}
	}
	s.Protocols = slices.Clone(s.Protocols)
	s.Machines = slices.Clone(s.Machines)
	for i, m := range s.Machines {
		if id, err := boot.ParseUUID(m); err == nil {
			s.Machines[i] = id
		}
	}
	if s.ExpiresAt != nil {
		end := s.ExpiresAt.UTC()
		s.ExpiresAt = &end
	}
	return s
}

// check names every fault of a completed Spec.
func (s Spec) check(now time.Time) error {
	e := &Invalid{}
	checkName(e, s.Name)
	if !slices.Contains(kinds(), s.Kind) {
		e.add("kind", "%.40q is neither %s nor %s", s.Kind, Chain, UEFI)
	}
	if s.Kind == UEFI && s.Set <= 0 {
		e.add("set", "a UEFI HTTP Boot URL belongs to an artifact set: give its number")
	}
	if s.Kind == Chain && s.Set != 0 {
		e.add("set", "a chain URL belongs to no artifact set: leave it out")
	}
	if s.ExpiresAt != nil && !s.ExpiresAt.After(now) {
		e.add("expires_at", "%s is over: want a time to come", s.ExpiresAt.Format(time.RFC3339))
	}
	if s.ExpiresAt != nil && s.ExpiresAt.Year() > 9999 {
		e.add("expires_at", "the year %d has more than four digits: leave it out for a URL without an end", s.ExpiresAt.Year())
	}
	for i, p := range s.Protocols {
		if p != HTTPS && p != HTTP {
			e.add("protocols", "%.40q is neither https nor http", p)
		} else if slices.Contains(s.Protocols[:i], p) {
			e.add("protocols", "%s is there twice", p)
		}
	}
	s.checkMachines(e)
	return e.orNil()
}

// checkName keeps out what would make a console or a log lie.
func checkName(e *Invalid, name string) {
	switch n := utf8.RuneCountInString(name); {
	case n == 0:
		e.add("name", "is missing")
	case n > maxName:
		e.add("name", "has %d characters, want %d at most", n, maxName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		e.add("name", "%.80q holds characters that cannot be printed", name)
	case strings.TrimSpace(name) != name:
		e.add("name", "%q begins or ends with a blank", name)
	}
}

func (s Spec) checkMachines(e *Invalid) {
	if s.Kind != Chain && len(s.Machines) > 0 {
		e.add("machines", "firmware does not say which machine it is in, so only chain URLs can be limited to machines")
		return
	}
	if len(s.Machines) > maxMachines {
		e.add("machines", "%d are more than %d: make one URL per rack", len(s.Machines), maxMachines)
		return
	}
	for i, m := range s.Machines {
		if _, err := boot.ParseUUID(m); err != nil {
			e.add("machines", "%s", err)
		} else if slices.Contains(s.Machines[:i], m) {
			e.add("machines", "machine %s is there twice", m)
		}
	}
}

// Consequence says in one sentence what it means to have made a link.
func (s Spec) Consequence() string {
	who := "whoever has this URL"
	if slices.Contains(s.Protocols, HTTP) {
		who += ", or sees it pass by on the network, since plain HTTP is allowed,"
	}
	if s.Kind == UEFI {
		return who + " can read the files of this artifact set with the private key in them, unless it is keyless, and boot as one of its machines"
	}
	as := "any machine"
	if n := len(s.Machines); n == 1 {
		as = "machine " + s.Machines[0]
	} else if n > 1 {
		as = fmt.Sprintf("any of %d machines", n)
	}
	return who + " can boot as " + as + " and is given its configuration"
}
