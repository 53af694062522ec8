package ipxebuild

import (
	"bytes"
	"crypto/sha256"
)

// File is one file of a set.
type File struct {
	Name     string // path as it is asked for: "<set>/<file>"
	Data     []byte
	HoldsKey bool // true when Data holds a private key
}

// Layout is the directory of a set: every base with its trust patched to root,
// and the set's script beside them. Stock.Set makes more; this goes when
// nothing uses it any more.
func Layout(set string, bases []Base, root [sha256.Size]byte, script []byte) ([]File, error) {
	if err := CheckSetName(set); err != nil {
		return nil, err
	}
	files := make([]File, 0, len(bases)+1)
	for _, b := range bases {
		files = append(files, File{Name: set + "/" + b.Name, Data: b.patch(root)})
	}
	holdsKey := bytes.Contains(script, []byte("set privkey:"))
	return append(files, File{Name: set + "/" + ScriptName, Data: script, HoldsKey: holdsKey}), nil
}

// ScriptConfig is what the script of Layout is made of.
type ScriptConfig struct {
	Set  string // name of the set, shown on the console
	Base string // https://host[:port] of the name that asks for client certificates
	Cert []byte // DER of the client certificate
	Key  []byte // DER of its private key (PKCS #1 or SEC 1)
}

// Script renders the script of Layout.
func Script(c ScriptConfig) ([]byte, error) {
	return scriptConfig{set: c.Set, url: c.Base, cert: c.Cert, key: c.Key}.render()
}
