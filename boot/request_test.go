package boot

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What iPXE 1.21.1 sends under OVMF; serial is empty when QEMU is given none.
const query = "uuid=4C4C4544-0042-3510-8052-b4c04f564433&mac=52-54-00-00-00-01&serial=&arch=x86_64&platform=efi&ip=10.77.0.57"

func TestParseRequest(t *testing.T) {
	r := mustParse(t, query)
	require.Equal(t, Request{
		UUID: uuidA, MAC: macA, Arch: AMD64, Platform: EFI, IP: netip.MustParseAddr("10.77.0.57"),
	}, r)
	require.Equal(t, AMD64, mustParse(t, strings.Replace(query, "x86_64", "i386", 1)).Arch)
	for sent, want := range map[string]string{
		"%20ABC%201%20": "ABC 1", "ABC%FF%FF": "ABC", "a%0Ab": "a?b", "%24%7Buuid%7D": "$ {uuid}", strings.Repeat("x", 99): strings.Repeat("x", 64),
	} {
		require.Equal(t, want, mustParse(t, strings.Replace(query, "serial=", "serial="+sent, 1)).Serial, "an odd serial number stops no machine")
	}
}

func TestParseRequestRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ old, new, want string }{
		"no uuid":           {"uuid=4C4C4544-0042-3510-8052-b4c04f564433", "", "uuid"},
		"short uuid":        {"4C4C4544", "4C4C", "is not a UUID"},
		"uuid in braces":    {"4C4C4544-0042-3510-8052-b4c04f564433", "{4C4C4544-0042-3510-8052-b4c04f564433}", "is not a UUID"},
		"nil uuid":          {"4C4C4544-0042-3510-8052-b4c04f564433", "00000000-0000-0000-0000-000000000000", "all zero"},
		"no mac":            {"52-54-00-00-00-01", "", "is not a 48-bit MAC"},
		"EUI-64":            {"52-54-00-00-00-01", "52-54-00-00-00-01-02-03", "is not a 48-bit MAC"},
		"arch":              {"x86_64", "vax", "architecture"},
		"platform":          {"platform=efi", "platform=coreboot", "platform"},
		"ip":                {"10.77.0.57", "10.77.0", "is not an address"},
		"ip with zone":      {"10.77.0.57", "fe80::1%25eth0", "is not an address"},
		"settings as value": {"52-54-00-00-00-01", "${net0/mac}", "is not a 48-bit MAC"},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := url.ParseQuery(strings.Replace(query, tt.old, tt.new, 1))
			require.NoError(t, err)
			_, err = ParseRequest(q)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func mustParse(t *testing.T, query string) Request {
	t.Helper()
	q, err := url.ParseQuery(query)
	require.NoError(t, err)
	r, err := ParseRequest(q)
	require.NoError(t, err)
	return r
}

// FuzzT16_ParseRequest checks that whatever firmware sends is either refused
// or comes out in the one form that scripts, logs and keys rely on.
func FuzzT16_ParseRequest(f *testing.F) {
	for _, s := range []string{query, "", "uuid=&mac=", strings.Replace(query, "serial=", "serial=%24%7Buuid%7D", 1), query + "&uuid=x", "%zz"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := url.ParseQuery(s)
		if err != nil {
			return
		}
		r, err := ParseRequest(q)
		if err != nil {
			require.LessOrEqual(t, len(err.Error()), 500)
			return
		}
		again, err := ParseUUID(r.UUID)
		require.NoError(t, err)
		require.Equal(t, r.UUID, again)
		require.Equal(t, strings.ToLower(r.MAC), r.MAC)
		require.Len(t, r.MAC, 17)
		require.LessOrEqual(t, len(r.Serial), maxSerial)
		require.NotContains(t, r.Serial, "\n")
		script, err := Decide(r, testInventory()).Script(Endpoint{Base: "https://ipxe.example.com", Boot: "1"})
		require.NoError(t, err)
		require.Equal(t, 11, strings.Count(string(script), "\n"), "the firmware's values must not add a line")
		require.Equal(t, 1, strings.Count(string(script), "${"), "nor an expansion beside that of errno")
	})
}
