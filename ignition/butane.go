package ignition

import (
	"fmt"

	"github.com/coreos/butane/config/common"
	flatcar1_0 "github.com/coreos/butane/config/flatcar/v1_0"
	flatcar1_1 "github.com/coreos/butane/config/flatcar/v1_1"
	v3_4 "github.com/coreos/ignition/v2/config/v3_4"
)

// MaxButane is the largest Butane file that Compile reads, in bytes. Disk images belong behind a URL.
const MaxButane = 1 << 20

// Compile translates a Butane file (variant flatcar, version 1.0.0 or 1.1.0) and refuses what could not be served:
// every error and every warning of Butane and of Ignition's validator, with its line and column; references to local
// files, because the result must not depend on where it was compiled; YAML aliases; and whatever nestboot writes
// itself (see Values). All faults are reported at once, one per line.
func Compile(butane []byte) (Base, error) {
	h, err := readHeader(butane)
	if err != nil {
		return Base{}, fmt.Errorf("compile butane: %w", err)
	}
	b, err := h.translate(butane)
	if err != nil {
		return Base{}, fmt.Errorf("compile butane: %w", err)
	}
	if err := conflicts(b.config); err != nil {
		return Base{}, fmt.Errorf("compile butane: %w", err)
	}
	return b, nil
}

// translate runs the translator of the header's version. They are called directly, since butane's own registry
// would link the translators of a dozen other systems into every program.
func (h header) translate(butane []byte) (Base, error) {
	translator, spec := flatcar1_0.ToIgn3_3Bytes, spec33
	switch {
	case h.Variant != "flatcar":
		return Base{}, fmt.Errorf("variant is %q: write variant: flatcar", h.Variant)
	case h.Version == "1.1.0":
		translator, spec = flatcar1_1.ToIgn3_4Bytes, spec34
	case h.Version != "1.0.0":
		return Base{}, fmt.Errorf("version is %q: write version: 1.0.0 (ignition 3.3) or 1.1.0 (ignition 3.4)", h.Version)
	}
	// Without a FilesDir butane opens no file.
	raw, rep, err := translator(butane, common.TranslateBytesOptions{})
	if err := faults(rep, err); err != nil {
		return Base{}, err
	}
	if err := check(raw, spec); err != nil {
		return Base{}, err
	}
	return decode(raw, spec)
}

func decode(raw []byte, spec string) (Base, error) {
	config, rep, err := v3_4.ParseCompatibleVersion(raw)
	if err := faults(rep, err); err != nil {
		return Base{}, fmt.Errorf("read translated config: %w", err)
	}
	return Base{config: config, spec: spec, forms: &forms{}}, nil
}
