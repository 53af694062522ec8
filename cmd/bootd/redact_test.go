package main

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/images"
	"github.com/nestboot/nestboot/pki"
)

// TestT19_WhatMayBeATokenIsTakenOut, wherever it stands, and nothing else is.
func TestT19_WhatMayBeATokenIsTakenOut(t *testing.T) {
	sum := fmt.Sprintf("%x", sha256.Sum256(nil))
	for range 1000 {
		token := pki.NewSecret().Encode()
		for _, text := range []string{token, "/artifacts/" + token + "/rack1.iso", "x" + token, token + "-1", sum + token, token + sum} {
			require.NotContains(t, redact(text), token)
		}
	}
	name := strings.Repeat("a", 42)
	require.NoError(t, images.CheckName(name))
	require.Error(t, images.CheckName(name+"a"), "its events would not name it")
	for _, text := range []string{sum, "SHA-256 " + sum + "), and", name, "4c4c4544-0042-3510-8052-b4c04f564433"} {
		require.Equal(t, text, redact(text))
	}
}
