package pki

import (
	"errors"
	"fmt"
	"strings"
)

// Token is what a machine shows: the boot that it speaks about, in clear, so
// that nobody has to search for it, and a secret.
type Token struct {
	Boot   string
	Secret Secret
}

// Encode returns "<boot id>.<secret>" for a header or a file.
func (t Token) Encode() string { return t.Boot + "." + t.Secret.Encode() }

// ParseToken takes exactly what Encode returned. The error doesn't repeat the
// input.
func ParseToken(s string) (Token, error) {
	boot, rest, found := strings.Cut(s, ".")
	if !found || checkID(boot) != nil {
		return Token{}, errors.New("a token is a boot id, a dot and a secret")
	}
	secret, err := ParseSecret(rest)
	if err != nil {
		return Token{}, fmt.Errorf("parse token: %w", err)
	}
	return Token{Boot: boot, Secret: secret}, nil
}

// checkID keeps ids from changing the meaning of a store key or a token.
func checkID(id string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	if id == "" || len(id) > 64 || strings.Trim(id, letters) != "" {
		return errors.New("an id has 1 to 64 letters, digits, '-' and '_'")
	}
	return nil
}
