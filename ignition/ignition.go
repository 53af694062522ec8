// Package ignition turns values into Ignition configs: what a machine writes to its disk at its first boot.
//
// An operator's Butane file is compiled once into a Base; each machine's own facts are merged onto it by Render.
// Pointer and Initrd make the small archive that rides behind the image's initrd and tells Ignition where the
// rendered config is and with which grant to ask for it.
//
// The package is pure: it opens no socket and no file, has no clock and writes no log. It mints no secret and
// decides nothing about a machine; whoever calls it does. Its errors never hold a token or a grant.
//
// Begin at Compile.
package ignition

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	v3_3 "github.com/coreos/ignition/v2/config/v3_3"
	v3_4 "github.com/coreos/ignition/v2/config/v3_4"
	"github.com/coreos/ignition/v2/config/v3_4/types"
	"github.com/coreos/vcontext/report"
)

// The specifications that Compile can yield. Flatcar's Ignition takes both (3.4 since 2.15); Debian's 2.14 takes the
// first only.
const (
	spec33 = "3.3.0"
	spec34 = "3.4.0"
)

// Base is a compiled Butane file: valid, and free of anything that nestboot must write itself. Only Compile makes
// one; the zero Base renders to an error. It is immutable and safe for concurrent use.
type Base struct {
	// config is held in 3.4's types whatever the spec: 3.3's are a subset of them with the same merge rules. encode
	// writes the version back and asks that version's own parser.
	config types.Config
	spec   string
	forms  *forms // nil in the zero Base
}

// Spec is the Ignition specification that rendered configs declare: "3.3.0" for flatcar 1.0.0, "3.4.0" for 1.1.0.
func (b Base) Spec() string { return b.spec }

// Render merges a machine's values onto the base and returns the config that the machine's Ignition fetches. It
// fails, naming the field, if a value is not what Values demands of it.
//
// What the base draws in by ignition.config.merge is merged by the machine, after us: there an operator can replace
// anything, the phone-home included.
func (b Base) Render(v Values) ([]byte, error) {
	raw, err := b.render(v)
	if err != nil {
		return nil, fmt.Errorf("render ignition config: %w", err)
	}
	return raw, nil
}

func (b Base) render(v Values) ([]byte, error) {
	if b.forms == nil || v.Hostname == "" { // the base's own name is no gap
		return b.whole(v)
	}
	if err := v.check(); err != nil {
		return nil, err
	}
	if raw, err := b.forms.render(v, b.whole); err != nil || raw != nil {
		return raw, err
	}
	return b.whole(v)
}

// whole renders at length: every part is encoded, and the outcome parsed.
func (b Base) whole(v Values) ([]byte, error) {
	ours, err := v.config()
	if err != nil {
		return nil, err
	}
	base := b.config
	if v.Hostname != "" {
		// Merging would keep the old entry's compression, hash and appendices beside our contents.
		base.Storage.Files = slices.DeleteFunc(slices.Clone(base.Storage.Files), func(f types.File) bool {
			return f.Path == hostnamePath
		})
	}
	return encode(v3_4.Merge(base, ours), b.spec)
}

// encode writes a config as JSON of the given spec and returns it only if that spec's own parser has no complaint.
func encode(c types.Config, spec string) ([]byte, error) {
	c.Ignition.Version = spec
	raw, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode config: %w", err)
	}
	if err := check(raw, spec); err != nil {
		return nil, err
	}
	return raw, nil
}

// check refuses raw unless it is a config of exactly this spec without errors and warnings: an unknown key is only
// a warning to Ignition, which then boots a machine without it.
func check(raw []byte, spec string) error {
	var rep report.Report
	var err error
	switch spec {
	case spec33:
		_, rep, err = v3_3.Parse(raw)
	case spec34:
		_, rep, err = v3_4.Parse(raw)
	default:
		return errors.New("the base was not made by Compile")
	}
	if err := faults(rep, err); err != nil {
		return fmt.Errorf("not a valid ignition %s config: %w", spec, err)
	}
	return nil
}
