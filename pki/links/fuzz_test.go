package links

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/vault"
)

// FuzzT13_Token: whatever stands in a URL opens nothing but its own link, and
// what is said about it does not repeat it.
func FuzzT13_Token(f *testing.F) {
	w := newWorld(f)
	var none *vault.Vault
	secret, err := pki.ParseSecret(strings.Repeat("A", 43))
	require.NoError(f, err)
	require.NoError(f, none.Write(filepath.Join(w.dir, "links.secret"), []byte(secret.Encode())))
	tokens := map[pki.Kind]string{}
	for _, kind := range kinds() {
		r := record{ID: 1, Spec: Spec{Kind: kind, Name: "a", Protocols: []string{HTTPS}}, Created: start, Nonce: make([]byte, nonceBytes)}
		token, err := tokenOf(secret, kind, r.ID, r.Nonce)
		require.NoError(f, err)
		tokens[kind], r.digest = token.Encode(), digestOf(token)
		value, err := json.Marshal(r)
		require.NoError(f, err)
		_, err = w.store.Put(f.Context(), r.key(), value)
		require.NoError(f, err)
	}
	l := w.open()
	for _, seed := range []string{"", "x", tokens[Chain], tokens[UEFI], tokens[Chain][:42], tokens[Chain] + "\n", strings.Repeat("A", 43), "../../links/url", "%00\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		for _, kind := range kinds() {
			_, _, err := l.Find(kind, token, HTTPS, start)
			require.Equal(t, token == tokens[kind], err == nil)
			if err != nil {
				require.Equal(t, pki.CodeUnknownToken, code(t, err))
			}
			for _, s := range l.Explain(token, start) {
				require.False(t, len(token) > 12 && strings.Contains(s.Reason, token))
			}
		}
	})
}
