package tftp

import (
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

func TestParseRequest(t *testing.T) {
	tests := map[string]struct {
		packet  []byte
		name    string
		options map[string]string
	}{
		"plain":               {rrq("a.efi", "octet"), "a.efi", nil},
		"ovmf":                {rrq("set/snponly.efi", "octet", "tsize", "0", "blksize", "1468", "windowsize", "4"), "set/snponly.efi", map[string]string{"tsize": "0", "blksize": "1468", "windowsize": "4"}},
		"ipxe":                {rrq("/set/autoexec.ipxe", "octet", "blksize", "1432", "tsize", "0"), "set/autoexec.ipxe", map[string]string{"blksize": "1432", "tsize": "0"}},
		"old rom, dhcp end":   {rrq("a.efi\xff", "octet"), "a.efi", nil},
		"old rom, two ends":   {rrq("a.efi\xff\xff", "octet"), "a.efi", nil},
		"old rom, upper case": {rrq("a.efi", "OCTET", "BLKSIZE", "1456"), "a.efi", map[string]string{"blksize": "1456"}},
		"old rom, padding":    {append(rrq("a.efi", "octet", "blksize", "1456"), make([]byte, 20)...), "a.efi", map[string]string{"blksize": "1456"}},
		"backslashes":         {rrq(`\Boot\x64\a.efi`, "octet"), "Boot/x64/a.efi", nil},
		"many slashes":        {rrq(`//\/a.efi`, "octet"), "a.efi", nil},
		"first of duplicates": {rrq("a", "octet", "blksize", "x", "BlkSize", "512"), "a", map[string]string{"blksize": "x"}},
		"unknown option":      {rrq("a", "octet", "multicast", ""), "a", map[string]string{"multicast": ""}},
		"dots are kept":       {rrq("../../etc/passwd", "octet"), "../../etc/passwd", nil},
		"not only ascii":      {rrq("bücher", "octet"), "bücher", nil},
		"16 options":          {rrq(append([]string{"a", "octet"}, pairs(16)...)...), "a", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			require.True(t, isRequest(tt.packet))
			r, err := parseRequest(tt.packet)
			require.NoError(t, err)
			require.Equal(t, tt.name, r.name)
			if tt.options != nil {
				require.Equal(t, tt.options, r.options)
			}
		})
	}
}

func pairs(n int) (s []string) {
	for i := range n {
		s = append(s, fmt.Sprintf("o%d", i), "1")
	}
	return s
}

func TestParseRequestRefuses(t *testing.T) {
	tests := map[string]struct {
		packet []byte
		code   uint16
		text   string
	}{
		"write":             {packet(opWRQ, "a", "octet"), codeAccess, "read-only"},
		"netascii":          {rrq("a", "netascii"), codeIllegal, "ask in octet mode"},
		"netascii, shouted": {rrq("a", "NetASCII"), codeIllegal, "ask in octet mode"},
		"mail":              {rrq("a", "mail"), codeIllegal, "only octet"},
		"nothing":           {[]byte{0, 1}, codeIllegal, "without a file name"},
		"name without end":  {[]byte{0, 1, 'a'}, codeIllegal, "without a file name"},
		"empty name":        {rrq("", "octet"), codeIllegal, "without a file name"},
		"slashes only":      {rrq(`/\/`, "octet"), codeIllegal, "without a file name"},
		"0xff only":         {rrq("\xff", "octet"), codeIllegal, "without a file name"},
		"no mode":           {rrq("a"), codeIllegal, "without a transfer mode"},
		"mode without end":  {append(rrq("a"), "octet"...), codeIllegal, "without a transfer mode"},
		"newline":           {rrq("a\nb", "octet"), codeIllegal, "control character"},
		"escape":            {rrq("a\x1b[2Jb", "octet"), codeIllegal, "control character"},
		"c1 control":        {rrq("a\u009bb", "octet"), codeIllegal, "control character"},
		"0xff inside":       {rrq("a\xffb", "octet"), codeIllegal, "UTF-8"},
		"value missing":     {rrq("a", "octet", "blksize"), codeOption, "cut off"},
		"value without end": {append(rrq("a", "octet", "blksize"), "512"...), codeOption, "cut off"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { requireRefusal(t, tt.packet, tt.code, tt.text) })
	}
}

func TestT03_RequestBounds(t *testing.T) {
	long := func(n int) []byte { return rrq(strings.Repeat("a", n-len(rrq("", "octet"))), "octet") }
	_, err := parseRequest(long(512))
	require.NoError(t, err)
	requireRefusal(t, long(513), codeIllegal, "512 bytes")
	requireRefusal(t, rrq(append([]string{"a", "octet"}, pairs(17)...)...), codeOption, "16 options")
	requireRefusal(t, rrq(append([]string{"a", "octet"}, strings.Split(strings.Repeat("b 1 ", 100), " ")[:200]...)...), codeOption, "16 options")
}

func requireRefusal(t *testing.T, p []byte, code uint16, text string) {
	t.Helper()
	_, err := parseRequest(p)
	var r *Refusal
	require.ErrorAs(t, err, &r)
	require.Equal(t, code, r.Code)
	require.Contains(t, r.Message, text)
}

func TestIsRequest(t *testing.T) {
	for op := range 8 {
		p := []byte{0, byte(op), 'a', 0, 'b', 0}
		require.Equal(t, op == opRRQ || op == opWRQ, isRequest(p), "opcode %d", op)
	}
	require.False(t, isRequest([]byte{0}))
	require.False(t, isRequest([]byte{1, 1}))
	require.False(t, isRequest(nil))
}

// FuzzParseRequest covers the whole way from a datagram to the terms of a transfer.
func FuzzParseRequest(f *testing.F) {
	f.Add(rrq("set/snponly.efi", "octet", "tsize", "0", "blksize", "1468", "windowsize", "4"))
	f.Add(rrq(`\Boot\a.efi`+"\xff", "OCTET", "BLKSIZE", "65465", "timeout", "255"))
	f.Add(packet(opWRQ, "a", "netascii"))
	f.Fuzz(func(t *testing.T, p []byte) {
		if !isRequest(p) {
			return
		}
		r, err := parseRequest(p)
		if strings.ContainsFunc(r.name, unicode.IsControl) || strings.HasPrefix(r.name, "/") || strings.Contains(r.name, `\`) {
			t.Fatalf("name %q is not clean", r.name)
		}
		if err != nil {
			if e := errorPacket(refusalOf(err)); len(e) > headerSize+maxMessage+1 {
				t.Fatalf("ERROR of %d bytes", len(e))
			}
			return
		}
		if len(p) > maxRequest || len(r.options) > maxOptions || r.name == "" {
			t.Fatalf("accepted %d bytes, %d options, name %q", len(p), len(r.options), r.name)
		}
		checkTerms(t, negotiate(r.options, 1<<40, 1468), 1468)
		_ = hardwareAddress(r.name)
	})
}
