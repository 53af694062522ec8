package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"testing"

	"github.com/stretchr/testify/require"
)

// For the server it is any RSA-2048 key.
func TestCheapKeySigns(t *testing.T) {
	k, err := newCheapKey()
	require.NoError(t, err)
	require.Equal(t, 2048, k.public.N.BitLen())
	digest := sha256.Sum256([]byte("x"))
	signature, err := k.Sign(rand.Reader, digest[:], crypto.SHA256)
	require.NoError(t, err)
	public, ok := k.Public().(*rsa.PublicKey)
	require.True(t, ok)
	require.NoError(t, rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature))
	_, err = k.Sign(rand.Reader, digest[:], &rsa.PSSOptions{Hash: crypto.SHA256})
	require.ErrorContains(t, err, "want PKCS #1")
}
