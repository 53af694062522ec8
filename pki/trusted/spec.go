package trusted

import (
	"bytes"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nestboot/nestboot/pki"
)

// What a pin compares.
const (
	MatchCertificate = "certificate" // the whole certificate: its renewal must be pinned anew
	MatchKey         = "key"         // its public key: a renewal with the same key is accepted too
)

// What becomes of an authority's machines when its revocation list is missing
// or older than it says it may be.
const (
	StaleRefuse = "refuse"
	StaleAccept = "accept" // who stands on the last list is refused all the same
)

// Limits of what can be registered.
const (
	maxEntries  = 100
	maxAllow    = 100
	maxMachines = 1000
)

// CRL says where the revocation list of an authority is found: exactly one of
// File and URL.
type CRL struct {
	File  string `json:"file,omitempty"`  // absolute path, PEM or DER; read again when it changes
	URL   string `json:"url,omitempty"`   // http or https; asked every five minutes
	Stale string `json:"stale,omitempty"` // StaleRefuse or StaleAccept; empty: StaleRefuse
}

// Spec is what an operator registers. It cannot be changed afterwards.
type Spec struct {
	// Name is 1 to 42 letters, digits, blanks, dots, hyphens and underscores,
	// unique without regard to case.
	Name string   `json:"name"`
	Kind pki.Kind `json:"kind"` // pki.KindCA or pki.KindPin
	// PEM is, of a pin, one certificate; of an authority its certificate and
	// further intermediates, at most 16 in any order. Those that none of the
	// others issued are trusted; so to trust an intermediate but not its root,
	// register the intermediate alone.
	PEM   string `json:"pem"`
	Match string `json:"match,omitempty"` // of a pin; empty: MatchCertificate
	// Allow are patterns of which a certificate of the authority must match
	// one; empty: every certificate. CN=, OU=, URI: compare exactly, DNS: and
	// EMAIL: without regard to case; a * stands for any characters, dots too.
	Allow     []string   `json:"allow,omitempty"`
	Machines  []string   `json:"machines,omitempty"` // UUIDs that its holders may boot; empty: any
	CRL       *CRL       `json:"crl,omitempty"`      // of an authority
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// Codes of a Fault.
const (
	CodeInvalid = "invalid_value"
	CodeTaken   = "value_already_exists"
)

// Fault is what is wrong with one field, named as in JSON.
type Fault struct{ Field, Code, Message string }

// Invalid is the error for a Spec that cannot be registered as it stands.
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

// complete fills in what was left out, so that an entry stays what it was made
// as whatever the defaults become.
func (s Spec) complete() Spec {
	if s.Kind == pki.KindPin && s.Match == "" {
		s.Match = MatchCertificate
	}
	s.Allow, s.Machines = slices.Clone(s.Allow), slices.Clone(s.Machines)
	for i, m := range s.Machines {
		if id, err := parseUUID(m); err == nil {
			s.Machines[i] = id
		}
	}
	if s.CRL != nil {
		crl := *s.CRL
		if crl.Stale == "" {
			crl.Stale = StaleRefuse
		}
		s.CRL = &crl
	}
	if s.ExpiresAt != nil {
		end := s.ExpiresAt.UTC()
		s.ExpiresAt = &end
	}
	return s
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9 ._-]{0,40}[A-Za-z0-9])?$`) // shorter than a token, which logs leave out

// check names every fault of a completed Spec and returns what it is made of.
func (s Spec) check(now time.Time) (material, error) {
	e := &Invalid{}
	if !nameForm.MatchString(s.Name) {
		e.add("name", "%.60q is no name: want 1 to 42 letters, digits, blanks, dots, hyphens and underscores, beginning and ending with a letter or digit", s.Name)
	}
	if s.ExpiresAt != nil && !s.ExpiresAt.After(now) {
		e.add("expires_at", "%s is over: want a time to come", s.ExpiresAt.Format(time.RFC3339))
	}
	m := material{}
	switch s.Kind {
	case pki.KindCA:
		if s.Match != "" {
			e.add("match", "is for pins: leave it out")
		}
		m = checkAuthority(e, s.PEM, now)
	case pki.KindPin:
		s.checkPin(e)
		m = checkPinned(e, s.PEM, s.Match, now)
	default:
		e.add("kind", "%.40q is neither %s nor %s", s.Kind, pki.KindCA, pki.KindPin)
		_ = readCertificates(e, s.PEM) // a private key is named whatever else is wrong
	}
	m.allow = s.checkAllow(e)
	s.checkMachines(e)
	s.checkCRL(e)
	return m, e.orNil()
}

func (s Spec) checkPin(e *Invalid) {
	if s.Match != MatchCertificate && s.Match != MatchKey {
		e.add("match", "%.40q is neither %s nor %s", s.Match, MatchCertificate, MatchKey)
	}
	if len(s.Allow) > 0 {
		e.add("allow", "is for authorities: a pin stands for one certificate. Leave it out")
	}
	if s.CRL != nil {
		e.add("crl", "is for authorities: remove the pin to end it")
	}
}

func (s Spec) checkAllow(e *Invalid) []pattern {
	if len(s.Allow) > maxAllow {
		e.add("allow", "%d patterns are more than %d: use wildcards", len(s.Allow), maxAllow)
		return nil
	}
	var all []pattern
	for i, text := range s.Allow {
		p, err := parsePattern(text)
		if err != nil {
			e.add("allow", "%s", err)
			continue
		}
		if slices.Contains(s.Allow[:i], text) {
			e.add("allow", "%q is there twice", text)
		}
		all = append(all, p)
	}
	return all
}

func (s Spec) checkMachines(e *Invalid) {
	if len(s.Machines) > maxMachines {
		e.add("machines", "%d are more than %d: register one entry per rack", len(s.Machines), maxMachines)
		return
	}
	for i, m := range s.Machines {
		if _, err := parseUUID(m); err != nil {
			e.add("machines", "%s", err)
		} else if slices.Contains(s.Machines[:i], m) {
			e.add("machines", "machine %s is there twice", m)
		}
	}
}

func (s Spec) checkCRL(e *Invalid) {
	if s.CRL == nil {
		return
	}
	if s.CRL.Stale != StaleRefuse && s.CRL.Stale != StaleAccept {
		e.add("crl", "%.40q is no policy for a stale list: want %s or %s", s.CRL.Stale, StaleRefuse, StaleAccept)
	}
	switch {
	case (s.CRL.File == "") == (s.CRL.URL == ""):
		e.add("crl", "want either a file or a url")
	case s.CRL.File != "" && (!filepath.IsAbs(s.CRL.File) || strings.ContainsRune(s.CRL.File, 0)):
		e.add("crl", "file %.200q is no absolute path on the host of bootd", s.CRL.File)
	case s.CRL.URL != "":
		u, err := url.Parse(s.CRL.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || len(s.CRL.URL) > 2000 {
			// The address is not repeated: it may hold a password.
			e.add("crl", "url is no address like http://pki.example.net/ca.crl, without user and password")
		}
	}
}

func parseUUID(s string) (string, error) {
	u, err := uuid.Parse(s)
	if err != nil || len(s) != 36 || bytes.Equal(u[:], uuid.Nil[:]) {
		return "", fmt.Errorf("%.40q is not a machine's UUID like 4c4c4544-0042-3510-8052-b4c04f564433", s)
	}
	return u.String(), nil
}
