package ipxebuild

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// A mark tells the undionly.kpxe of this root from every other iPXE, that of
// another nestboot too: the end of the version that ${version} shows is replaced
// by a comma, which no version has, and the beginning of the root's fingerprint
// in hexadecimal. Of 2.0.0+dfsg-5, 2.0.0 is left. See script.go.
const (
	markSign = ","
	maxMark  = 7 // with the comma
	minMark  = 4
)

// markedVersion is what ${version} is in a binary that was marked: as long as
// before. Of a short version only the beginning is left.
func markedVersion(version string, root digest) string {
	n := min(maxMark, len(version)-1)
	return version[:len(version)-n] + markSign + hex.EncodeToString(root[:])[:n-1]
}

// mark marks the version in place. Length and all else stay as they are.
func mark(code []byte, root digest) error {
	at := versionAt(code)
	if at == nil {
		return errors.New("it does not say where its version is, which would be marked")
	}
	version := string(code[at[0]:at[1]])
	if len(version) <= minMark {
		return fmt.Errorf("version %s leaves no room for a mark", version)
	}
	copy(code[at[0]:], markedVersion(version, root))
	return nil
}

// patchBIOS is a BIOS binary with its trust root replaced and, if it is
// undionly.kpxe, marked.
func (b Base) patchBIOS(root digest) ([]byte, error) {
	payload := b.image.Payload()
	copy(payload[b.trust:], root[:])
	if b.Kind == KindKPXE {
		if err := mark(payload, root); err != nil {
			return nil, err
		}
	}
	return b.image.Repack(payload) // which reads the result again and compares
}
