package ignition

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const (
	pointerURL = "https://boot.example.com/ipxe/ignition"
	grant      = "Z3JhbnQtb25seS1mb3ItdGhpcy10ZXN0"
)

func TestPointer(t *testing.T) {
	raw, err := Pointer(pointerURL, grant, read(t, "root.pem"))
	require.NoError(t, err)
	golden(t, "pointer.golden.json", raw)
	require.Empty(t, debianValidate(t, raw))
}

func TestPointerRefuses(t *testing.T) {
	root := string(read(t, "root.pem"))
	for name, tt := range map[string]struct{ url, grant, root, want string }{
		"plain http": {"http://boot.example.com/", grant, root, `url "http://boot.example.com/" must begin with https:// and a host: a secret travels with it`},
		"no grant":   {pointerURL, "", root, "secret of 0 bytes is not a bearer token of 1 to 512 bytes (RFC 6750)"},
		"no root":    {pointerURL, grant, "", "root certificate is missing"},
		"leaf":       {pointerURL, grant, string(read(t, "leaf.pem")), `root certificate "CN=leaf" is not an authority's`},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := Pointer(tt.url, tt.grant, []byte(tt.root))
			require.EqualError(t, err, "point to ignition config: "+tt.want)
			require.Empty(t, raw)
		})
	}
}

func TestT17_PointerHoldsItsValuesOnly(t *testing.T) {
	root := read(t, "root.pem")
	rapid.Check(t, func(t *rapid.T) {
		url := "https://" + rapid.OneOf(rapid.StringMatching(`[a-z0-9.]{1,20}(/[a-z0-9._~-]{0,9}){0,3}`), rapid.String()).Draw(t, "url")
		grant := rapid.OneOf(rapid.StringMatching(`[A-Za-z0-9._~+/-]{1,43}=?`), rapid.String()).Draw(t, "grant")
		raw, err := Pointer(url, grant, root)
		if err != nil {
			return
		}
		c := parse(t, raw)
		require.Equal(t, url, *c.Ignition.Config.Replace.Source)
		require.Len(t, c.Ignition.Config.Replace.HTTPHeaders, 1)
		require.Equal(t, "Bearer "+grant, *c.Ignition.Config.Replace.HTTPHeaders[0].Value)
		require.Equal(t, 1, strings.Count(string(raw), "Authorization"))
		require.Empty(t, c.Storage)
		require.Empty(t, c.Systemd)
		require.Empty(t, c.Passwd)
	})
}
