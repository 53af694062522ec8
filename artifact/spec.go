package artifact

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/ipxebuild"
	"github.com/nestboot/nestboot/pki"
)

// Protocol is a way in which the files of a set may leave.
type Protocol string

// The protocols. HTTPS means the address with a token; files without a key
// need none.
const (
	HTTPS Protocol = "https"
	HTTP  Protocol = "http"
	TFTP  Protocol = "tftp"
)

// Protocols are all of them, in the order in which they are shown.
func Protocols() []Protocol { return []Protocol{HTTPS, HTTP, TFTP} }

// The key types of a set.
const (
	KeyRSA  = pki.KeyRSA
	KeyP256 = pki.KeyP256
)

// Spec is what an operator asks for, and what a set is made of. Only Exposure
// can be changed afterwards.
type Spec struct {
	Name      string            `json:"name"`       // 1 to 32 lower-case letters, digits and hyphens
	ExpiresAt *time.Time        `json:"expires_at"` // nil: the certificate lives a year and is renewed
	Archs     []boot.Arch       `json:"archs"`      // empty: all
	KeyType   string            `json:"key_type"`   // empty: that of the authority
	Keyless   bool              `json:"keyless"`    // trust only, no certificate
	Machines  []string          `json:"machines"`   // UUIDs that its holders may boot; empty: any
	Base      string            `json:"base"`       // version of iPXE; empty: the newest
	Exposure  []Protocol        `json:"exposure"`   // nil: HTTPS
	Options   ipxebuild.Options `json:"options"`
}

// Codes of a Fault.
const (
	CodeInvalid   = "invalid_value"
	CodeTaken     = "value_already_exists"
	CodeImmutable = "value_cannot_change"
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

// maxMachines bounds the list of a set that is limited to machines.
const maxMachines = 1000

// complete fills in what was left out, so that a set stays what it was made as
// whatever the defaults become. The authority's certificates have keys of type
// key.
func (s Spec) complete(versions []string, key string) Spec {
	if len(s.Archs) == 0 {
		s.Archs = []boot.Arch{boot.AMD64, boot.ARM64}
	}
	if s.KeyType == "" && !s.Keyless {
		s.KeyType = key
	}
	if s.Base == "" && len(versions) > 0 {
		s.Base = versions[0]
	}
	if s.Exposure == nil {
		s.Exposure = []Protocol{HTTPS}
	}
	s.Machines = slices.Clone(s.Machines)
	for i, m := range s.Machines {
		if id, err := boot.ParseUUID(m); err == nil {
			s.Machines[i] = id
		}
	}
	return s
}

// check names every fault of a completed Spec. A certificate of this authority
// has a key of type key and ends at end at the latest.
func (s Spec) check(versions []string, key string, now, end time.Time) error {
	e := &Invalid{}
	s.checkName(e)
	if s.ExpiresAt != nil && !s.ExpiresAt.After(now) {
		e.add("expires_at", "%s is over: want a time to come", s.ExpiresAt.Format(time.RFC3339))
	}
	if s.ExpiresAt != nil && s.ExpiresAt.After(end) {
		e.add("expires_at", "%s is later than %s, when the authority itself ends", s.ExpiresAt.Format(time.RFC3339), end.UTC().Format(time.RFC3339))
	}
	for i, a := range s.Archs {
		if a != boot.AMD64 && a != boot.ARM64 {
			e.add("archs", "%.40q is neither %s nor %s", a, boot.AMD64, boot.ARM64)
		}
		if slices.Contains(s.Archs[:i], a) {
			e.add("archs", "%s is there twice", a)
		}
	}
	s.checkKey(e, key)
	s.checkMachines(e)
	switch {
	case len(versions) == 0:
		e.add("base", "%s", errNoBases)
	case !slices.Contains(versions, s.Base):
		e.add("base", "version %.60q of iPXE is not here; there are %s (nestctl base list)", s.Base, strings.Join(versions, ", "))
	}
	checkExposure(e, s.Exposure)
	if err := s.Options.Validate(); err != nil {
		e.add("options", "%s", oneLine(err))
	}
	return e.orNil()
}

func (s Spec) checkName(e *Invalid) {
	if err := ipxebuild.CheckSetName(s.Name); err != nil {
		e.add("name", "%s", err)
	}
}

func (s Spec) checkKey(e *Invalid, key string) {
	const never = "iPXE never sends a certificate whose key is of another type than its issuer's"
	switch {
	case s.Keyless && s.KeyType != "":
		e.add("key_type", "a keyless set has no key: leave it out")
	case s.Keyless, s.KeyType == key:
	case s.KeyType == KeyP256:
		e.add("key_type", "p256 needs an authority with an EC key, and this one has an RSA key: %s. Use %s", never, key)
	case s.KeyType == KeyRSA:
		e.add("key_type", "rsa2048 needs an authority with an RSA key, and this one has an EC key: %s. Use %s", never, key)
	default:
		e.add("key_type", "%.40q is neither rsa2048 nor p256", s.KeyType)
	}
}

func (s Spec) checkMachines(e *Invalid) {
	if s.Keyless && len(s.Machines) > 0 {
		e.add("machines", "a keyless set proves nothing, so it cannot be limited to machines")
	}
	if len(s.Machines) > maxMachines {
		e.add("machines", "%d are more than %d: make one set per rack", len(s.Machines), maxMachines)
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

func checkExposure(e *Invalid, exposure []Protocol) {
	for i, p := range exposure {
		if !slices.Contains(Protocols(), p) {
			e.add("exposure", "%.40q is none of https, http, tftp", p)
		}
		if slices.Contains(exposure[:i], p) {
			e.add("exposure", "%s is there twice", p)
		}
	}
}

// Consequence says in one sentence what the exposure of a set means.
func (s Spec) Consequence() string {
	var open []string
	for _, p := range []Protocol{TFTP, HTTP} {
		if slices.Contains(s.Exposure, p) {
			open = append(open, map[Protocol]string{TFTP: "TFTP", HTTP: "plain HTTP"}[p])
		}
	}
	switch {
	case s.Keyless:
		return "this set holds no private key: anybody may read its files, and its machines wait until they are approved"
	case len(open) > 0:
		return "anybody on the provisioning network can read this set's private key over " + strings.Join(open, " and ") +
			", and boot as one of its machines"
	case slices.Contains(s.Exposure, HTTPS):
		return "whoever has one of this set's download addresses can read its private key; TFTP and plain HTTP refuse its files"
	}
	return "this set's files leave only by nestctl artifact download"
}

var errNoBases = errors.New("there are no iPXE binaries: install Debian's package ipxe (1.21.1 or newer) or name .deb files in artifacts.bases, then reload bootd")

// oneLine puts the parts of a joined error on one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// Errors that callers tell apart.
var (
	// ErrUnknown is returned for a set that does not exist.
	ErrUnknown = errors.New("no such artifact set")
	// ErrBusy is returned for a set that is being made or deleted.
	ErrBusy = errors.New("artifact set is being made or deleted: ask again in a moment")
	// ErrUnknownToken is returned for a download address that leads nowhere; it is
	// an fs.ErrNotExist.
	ErrUnknownToken = fmt.Errorf("no set has the token of this address: it was deleted, or the address is not whole: %w", fs.ErrNotExist)
)
