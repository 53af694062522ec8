package artifact

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/nestboot/nestboot/pki"
)

// File is one file of a set, as it is sent.
type File struct {
	Data   []byte
	SHA256 string // hexadecimal
}

// Why a file that exists is not served. The codes are stable.
const (
	CodeNotExposed = "key-not-exposed" // its set holds a key and is not exposed over this protocol
	CodeExpired    = "set-expired"
	CodeFault      = "set-unusable" // the set cannot be assembled just now
)

// Withheld is the error for a file that exists and is not served.
type Withheld struct {
	Set    string
	Code   string
	Reason string // one line
	Fix    string // the command that changes it; may be empty
}

func (w *Withheld) Error() string {
	if w.Fix == "" {
		return w.Reason
	}
	return w.Reason + "; to change that: " + w.Fix
}

// File returns the file that is asked for by name over a protocol without any
// proof of who asks: TFTP, HTTP, or HTTPS without a token. It is fs.ErrNotExist
// for a name that no set has, and *Withheld for one that a set has and does not
// give away (T14): of a set with a key nothing leaves by an open protocol that
// its operator did not choose, and nothing at all by HTTPS.
//
// Names resolve in the sets' own lists: "rack1.efi", "rack1/snponly.efi".
func (s *Sets) File(ctx context.Context, name string, over Protocol) (File, error) {
	v := s.find(name)
	if v == nil {
		return File{}, fs.ErrNotExist
	}
	file, ok := v.resolve(name)
	if !ok {
		return File{}, s.absent(v)
	}
	if err := s.mayLeave(v, over, false); err != nil {
		return File{}, err
	}
	return s.render(ctx, v, file)
}

// Download returns the file that is asked for at a set's download address. A
// token that is not any set's is fs.ErrNotExist, and nothing is said about it.
func (s *Sets) Download(ctx context.Context, token, name string) (File, error) {
	t, err := pki.ParseSecret(token)
	if err != nil {
		return File{}, ErrUnknownToken
	}
	var v *version
	for _, m := range s.members() { // all of them, so that the time tells nothing
		if c := m.current.Load(); c.token.Equal(t) {
			v = c
		}
	}
	if v == nil {
		return File{}, ErrUnknownToken
	}
	if _, ok := v.files[name]; !ok {
		return File{}, s.absent(v)
	}
	if err := s.mayLeave(v, HTTPS, true); err != nil {
		return File{}, err
	}
	return s.render(ctx, v, name)
}

// Render returns a file for the operator, whatever the set's exposure.
func (s *Sets) Render(ctx context.Context, id int64, name string) (File, error) {
	m := s.numbered(id)
	if m == nil {
		return File{}, ErrUnknown
	}
	v := m.current.Load()
	if _, ok := v.files[name]; !ok {
		return File{}, s.absent(v)
	}
	return s.render(ctx, v, name)
}

// render makes a file, or finds it. The disk image has the bytes of the ISO, so
// both are one file in memory.
func (s *Sets) render(ctx context.Context, v *version, name string) (File, error) {
	if base, ok := strings.CutSuffix(name, ".raw"); ok {
		if _, both := v.files[base+".iso"]; both {
			name = base + ".iso"
		}
	}
	return s.cache.get(ctx, fileKey{v, name}, func() ([]byte, error) { return v.built.Render(name) })
}

// find is the set that a name belongs to, nil if there is none. A name begins
// with its set's, but for the one that iPXE asks for without its folder.
func (s *Sets) find(name string) *version {
	set := name
	if i := strings.IndexAny(name, "./"); i >= 0 {
		set = name[:i]
	}
	if m := s.named(set); m != nil {
		return m.current.Load()
	}
	if !scriptName.MatchString(name) {
		return nil
	}
	var found *version
	for _, m := range s.members() {
		v := m.current.Load()
		if v.built == nil || !slices.Contains(v.bare, name) {
			continue
		}
		if found != nil { // autoexec.ipxe of two sets: neither is meant
			return nil
		}
		found = v
	}
	return found
}

// resolve turns a name that is asked for into one of the set's files.
func (v *version) resolve(name string) (string, bool) {
	if slices.Contains(v.bare, name) {
		name = v.rec.Spec.Name + "/" + name
	}
	_, ok := v.files[name]
	return name, ok
}

// absent is the answer for a file that a set does not have, or does not have
// any more.
func (s *Sets) absent(v *version) error {
	switch {
	case v.rec.State != ready || v.built != nil:
		return fs.ErrNotExist
	case s.expired(v.rec):
		return s.hasExpired(v)
	}
	return &Withheld{Set: v.rec.Spec.Name, Code: CodeFault, Reason: "set " + v.rec.Spec.Name + " cannot be served just now; the log of bootd says why"}
}

// mayLeave decides whether a file of the set may be sent.
func (s *Sets) mayLeave(v *version, over Protocol, proved bool) error {
	spec := v.rec.Spec
	switch {
	case s.expired(v.rec):
		return s.hasExpired(v)
	case spec.Keyless, slices.Contains(spec.Exposure, over) && (over != HTTPS || proved):
		return nil
	case over == HTTPS && !proved:
		return &Withheld{spec.Name, CodeNotExposed, "it holds a private key: only its download address, which has a token, leads to it", "nestctl artifact show " + spec.Name}
	}
	return &Withheld{spec.Name, CodeNotExposed, "set " + spec.Name + " holds a private key", fmt.Sprintf("nestctl artifact update %s --serve %s", spec.Name, over)}
}

func (s *Sets) hasExpired(v *version) error {
	spec := v.rec.Spec
	return &Withheld{spec.Name, CodeExpired, fmt.Sprintf("set %s expired at %s", spec.Name, spec.ExpiresAt.UTC().Format("2006-01-02 15:04")), "nestctl artifact delete " + spec.Name + ", then create"}
}

// Member is nil when whoever holds the set's certificate may boot the machine,
// and else says why not. Whether the certificate itself is good, pki says.
func (s *Sets) Member(set, machine string) error {
	m := s.named(set)
	if m == nil {
		return fmt.Errorf("there is no set %.40s", set)
	}
	r := m.current.Load().rec
	switch {
	case r.State != ready:
		return fmt.Errorf("set %s is being made or deleted", set)
	case r.damaged != nil: // it may have been limited to some machines
		return fmt.Errorf("set %s: %w", set, r.damaged)
	case s.expired(r):
		return s.hasExpired(m.current.Load())
	}
	list := r.Spec.Machines
	if len(list) > 0 && !slices.Contains(list, machine) {
		return fmt.Errorf("set %s is limited to %d machines and this is none of them: nestctl artifact show %s lists them", set, len(list), set)
	}
	return nil
}
