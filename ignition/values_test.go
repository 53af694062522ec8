package ignition

import (
	"encoding/pem"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRenderAccepts(t *testing.T) {
	base := compile(t, "empty-1.0.0.bu")
	for name, bend := range map[string]func(*Values){
		"no hostname":       func(v *Values) { v.Hostname = "" },
		"shortest hostname": func(v *Values) { v.Hostname = "7" },
		"longest hostname":  func(v *Values) { v.Hostname = strings.Repeat("a", 62) + ".b" },
		"longest label":     func(v *Values) { v.Hostname = strings.Repeat("A", 63) },
		"ipv6 and port":     func(v *Values) { v.Done.URL = "https://[fd00:77::1]:8443/ipxe/done" },
		"padded token":      func(v *Values) { v.Done.Token = "a.b_c~d+e/f-0==" },
		"two roots":         func(v *Values) { v.RootPEM = append(v.RootPEM, v.RootPEM...) },
	} {
		t.Run(name, func(t *testing.T) {
			v := values(t)
			bend(&v)
			_, err := base.Render(v)
			require.NoError(t, err)
		})
	}
}

func TestRenderRefuses(t *testing.T) {
	base := compile(t, "empty-1.0.0.bu")
	for name, tt := range map[string]struct {
		bend func(*Values)
		want string
	}{
		"underscore":      {func(v *Values) { v.Hostname = "node_1" }, `hostname "node_1" is not a host name of at most 64 bytes (RFC 1123)`},
		"newline":         {func(v *Values) { v.Hostname = "node\nroot" }, `hostname "node\nroot" is not a host name of at most 64 bytes (RFC 1123)`},
		"outer hyphen":    {func(v *Values) { v.Hostname = "node-.a" }, `hostname "node-.a" is not a host name of at most 64 bytes (RFC 1123)`},
		"trailing dot":    {func(v *Values) { v.Hostname = "node." }, `hostname "node." is not a host name of at most 64 bytes (RFC 1123)`},
		"long label":      {func(v *Values) { v.Hostname = strings.Repeat("a", 64) }, "is not a host name"},
		"long hostname":   {func(v *Values) { v.Hostname = strings.Repeat("a.", 32) + "b" }, "is not a host name"},
		"plain http":      {func(v *Values) { v.Done.URL = "http://boot.example.com/" }, `url "http://boot.example.com/" must begin with https:// and a host: a secret travels with it`},
		"no host":         {func(v *Values) { v.Done.URL = "https://:443/" }, `url "https://:443/" must begin with https:// and a host: a secret travels with it`},
		"no URL":          {func(v *Values) { v.Done.URL = "" }, `url "" must begin with https:// and a host: a secret travels with it`},
		"user":            {func(v *Values) { v.Done.URL = "https://a@b/" }, `url "https://a@b/" is not a plain URL of at most 2048 bytes`},
		"query":           {func(v *Values) { v.Done.URL = "https://b/?a" }, `url "https://b/?a" is not a plain URL of at most 2048 bytes`},
		"systemd's %":     {func(v *Values) { v.Done.URL = "https://b/%68" }, `url "https://b/%68" is not a plain URL of at most 2048 bytes`},
		"second argument": {func(v *Values) { v.Done.URL = "https://b/ -K/x" }, `url "https://b/ -K/x" is not a plain URL of at most 2048 bytes`},
		"long URL":        {func(v *Values) { v.Done.URL = "https://b/" + strings.Repeat("a", 2048) }, "is not a plain URL of at most 2048 bytes"},
		"no token":        {func(v *Values) { v.Done.Token = "" }, "secret of 0 bytes is not a bearer token of 1 to 512 bytes (RFC 6750)"},
		"only padding":    {func(v *Values) { v.Done.Token = "==" }, "secret of 2 bytes is not a bearer token"},
		"second header":   {func(v *Values) { v.Done.Token = "a\nX-Y: b" }, "secret of 8 bytes is not a bearer token"},
		"long token":      {func(v *Values) { v.Done.Token = strings.Repeat("a", 513) }, "secret of 513 bytes is not a bearer token"},
		"no root":         {func(v *Values) { v.RootPEM = nil }, "root certificate is missing"},
		"root in DER":     {func(v *Values) { v.RootPEM = []byte{0x30, 0x82} }, "root certificate is not PEM"},
		"broken root":     {func(v *Values) { v.RootPEM = encodePEM("CERTIFICATE") }, "root certificate: x509: malformed certificate"},
		"all at once": {
			func(v *Values) { *v = Values{} },
			"url \"\" must begin with https:// and a host: a secret travels with it\nsecret of 0 bytes is not a bearer token of 1 to 512 bytes (RFC 6750)\nroot certificate is missing",
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := values(t)
			tt.bend(&v)
			raw, err := base.Render(v)
			require.ErrorContains(t, err, "render ignition config: ")
			require.ErrorContains(t, err, tt.want)
			require.Empty(t, raw)
		})
	}
}

func encodePEM(kind string) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte("not for other eyes")})
}

// A leaf or a key beside the root, or text around it, never reaches a machine.
func TestT19_OnlyAuthoritiesTravel(t *testing.T) {
	base, v := compile(t, "empty-1.0.0.bu"), values(t)
	root := v.RootPEM

	v.RootPEM = append(encodePEM("PRIVATE KEY"), root...)
	_, err := base.Render(v)
	require.EqualError(t, err, `render ignition config: root certificate comes with a "PRIVATE KEY": it must stand alone`)
	_, err = Pointer(v.Done.URL, "grant", v.RootPEM)
	require.EqualError(t, err, `point to ignition config: root certificate comes with a "PRIVATE KEY": it must stand alone`)

	v.RootPEM = read(t, "leaf.pem")
	_, err = base.Render(v)
	require.EqualError(t, err, `render ignition config: root certificate "CN=leaf" is not an authority's`)

	v.RootPEM = append([]byte("password: hunter2\n"), root...)
	raw, err := base.Render(v)
	require.NoError(t, err)
	require.Equal(t, string(root), content(parse(t, raw), rootPath))
}

func TestT19_ErrorsHoldNoToken(t *testing.T) {
	const secret = "sesame-sesame-sesame"
	base, v := compile(t, "empty-1.0.0.bu"), values(t)
	v.Done.Token = secret + " "
	_, err := base.Render(v)
	require.Error(t, err)
	require.NotContains(t, err.Error(), secret)
	_, err = Pointer("http://x", secret+"\n", nil)
	require.Error(t, err)
	require.NotContains(t, err.Error(), secret)
}
