package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
)

const (
	redacted    = "[redacted]"
	secretBytes = 32
)

// Secret is a value that must not be printed: every way of formatting,
// marshalling or logging it gives [redacted]. The zero value holds nothing and
// equals nothing.
type Secret struct {
	// A func, because fmt prints the unexported fields of a struct around us
	// without asking for our methods, and follows even pointers when the verb
	// doesn't fit. It also keeps == from compiling, whose time would tell.
	value func() []byte
}

func newSecret(b []byte) Secret { return Secret{value: func() []byte { return b }} }

// NewSecret returns 256 random bits.
func NewSecret() Secret {
	b := make([]byte, secretBytes)
	_, _ = rand.Read(b) // never fails: the runtime ends the process instead
	return newSecret(b)
}

// ParseSecret takes what Encode returned: 43 characters, unpadded base64url
// with no stray bits, so that each secret has exactly one spelling.
func ParseSecret(s string) (Secret, error) {
	encoding := base64.RawURLEncoding.Strict()
	if len(s) != encoding.EncodedLen(secretBytes) {
		return Secret{}, fmt.Errorf("a secret has %d characters, got %d", encoding.EncodedLen(secretBytes), len(s))
	}
	b, err := encoding.DecodeString(s)
	if err != nil || len(b) != secretBytes { // it skips line ends
		return Secret{}, errors.New("a secret is unpadded base64url")
	}
	return newSecret(b), nil
}

// Reveal returns a copy of the bytes.
func (s Secret) Reveal() []byte {
	if s.value == nil {
		return nil
	}
	return slices.Clone(s.value())
}

// Encode returns the bytes as unpadded base64url, for a header or a file.
func (s Secret) Encode() string { return base64.RawURLEncoding.EncodeToString(s.Reveal()) }

// Equal takes the same time wherever the two differ.
func (s Secret) Equal(other Secret) bool {
	return s.value != nil && other.value != nil && subtle.ConstantTimeCompare(s.value(), other.value()) == 1
}

// digest is the only form in which a secret is stored. Its 256 random bits
// need no salt and no slow hash.
func (s Secret) digest() Digest { return sha256.Sum256(s.Reveal()) }

// is compares with a stored digest; a zero digest matches nothing.
func (s Secret) is(stored Digest) bool {
	own := s.digest()
	return stored != Digest{} && subtle.ConstantTimeCompare(own[:], stored[:]) == 1
}

// String returns [redacted].
func (s Secret) String() string { return redacted }

// GoString returns [redacted].
func (s Secret) GoString() string { return redacted }

// Format writes [redacted] for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText returns [redacted].
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON returns "[redacted]".
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue returns [redacted].
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
