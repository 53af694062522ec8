package ipxebuild

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"regexp"
)

// ScriptName is the name under which iPXE looks for a script beside the place
// it was itself loaded from, by TFTP as by HTTP (seen with 1.21.1 and 2.0.0).
const ScriptName = "autoexec.ipxe"

// File is one file of a set.
type File struct {
	Name     string // path as it is asked for: "<set>/<file>"
	Data     []byte
	HoldsKey bool // true when Data holds a private key
}

var setName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// CheckSetName reports whether a name can be a set's: 1 to 32 lower-case
// letters, digits and hyphens, no hyphen at either end. It becomes part of a
// DHCP file name, which has 127 bytes.
func CheckSetName(name string) error {
	if !setName.MatchString(name) {
		return fmt.Errorf("set name %q: want 1 to 32 lower-case letters, digits and hyphens, none at the ends", name)
	}
	return nil
}

// Layout is the directory of a set: every base with its trust patched to root,
// and the set's script beside them.
func Layout(set string, bases []Base, root [sha256.Size]byte, script []byte) ([]File, error) {
	if err := CheckSetName(set); err != nil {
		return nil, err
	}
	files := make([]File, 0, len(bases)+1)
	for _, b := range bases {
		files = append(files, File{Name: set + "/" + b.Name, Data: b.Trust(root)})
	}
	holdsKey := bytes.Contains(script, []byte("set privkey:"))
	return append(files, File{Name: set + "/" + ScriptName, Data: script, HoldsKey: holdsKey}), nil
}
