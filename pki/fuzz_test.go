package pki

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzImport reads what somebody says are an authority's certificates and key.
func FuzzImport(f *testing.F) {
	for _, name := range []string{"root.pem", "server.pem", "server.key", "rack1.pem"} {
		data, err := os.ReadFile("testdata/one-root/" + name)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := parseKey("file", data)
		require.Equal(t, err == nil, key != nil)
		chain, err := parseCerts("file", data)
		if err != nil {
			return
		}
		require.NotEmpty(t, chain)
		if checkIssuerChain(chain) == nil {
			require.GreaterOrEqual(t, len(chain), 2)
			require.NoError(t, chain[0].CheckSignatureFrom(chain[1]))
		}
	})
}
