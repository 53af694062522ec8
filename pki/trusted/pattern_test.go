package trusted

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestT13_Patterns(t *testing.T) {
	link, err := url.Parse("spiffe://corp/rack1/Node")
	require.NoError(t, err)
	name := func(n int, v any) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, n}, Value: v}
	}
	cert := &x509.Certificate{
		Subject:  pkix.Name{CommonName: "second", Names: []pkix.AttributeTypeAndValue{name(3, "first"), name(3, "second"), name(11, "Racks"), name(10, "Corp"), name(3, 7)}},
		DNSNames: []string{"a.rack1.example.net", "Ü.example.net"}, URIs: []*url.URL{link}, EmailAddresses: []string{"Ops@example.net"},
	}
	for text, want := range map[string]bool{
		"CN=first": true, "CN=second": true, "CN=First": false, "CN=*": true, "CN=firs": false, "CN=f*t": true, "CN=f*s": false, "CN=first*": true, "CN=*first": true,
		"CN=fir*irst": false, "CN=**": true, "CN=f*i*r*s*t": true, "CN=Racks": false, "OU=Racks": true, "OU=racks": false, "OU=Corp": false,
		"DNS:a.rack1.example.net": true, "DNS:A.rack1.EXAMPLE.net": true, "DNS:*.example.net": true, "DNS:*.rack2.example.net": false, "DNS:rack1.example.net": false,
		"DNS:ü.example.net": false, "DNS:Ü.example.net": true, "DNS:a.rack1.example.net.": false,
		"URI:spiffe://corp/*": true, "URI:spiffe://corp/rack1/node": false, "EMAIL:ops@EXAMPLE.net": true, "EMAIL:*@example.com": false,
	} {
		p, err := parsePattern(text)
		require.NoError(t, err, text)
		require.Equal(t, want, p.matches(cert), text)
	}
	odd := &x509.Certificate{
		Subject:  pkix.Name{Names: []pkix.AttributeTypeAndValue{name(3, "node-\x00evil"), name(3, "node-\u0085")}},
		DNSNames: []string{"evil.example.org\x00.rack1.example.net"}, EmailAddresses: []string{"a\n@example.net"},
	}
	for _, text := range []string{"CN=node-*", "DNS:*.rack1.example.net", "EMAIL:*@example.net"} {
		p, err := parsePattern(text)
		require.NoError(t, err)
		require.False(t, p.matches(odd), "a name with control characters is none: %s", text)
	}
	p, err := parsePattern("CN=*")
	require.NoError(t, err)
	require.False(t, p.matches(&x509.Certificate{DNSNames: []string{"a"}}), "a name that is not there does not match")
}

// TestPatternsMeanWhatARegularExpressionSays compares with another way to say
// the same.
func TestPatternsMeanWhatARegularExpressionSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Few letters, so that parts repeat and overlap.
		parts := rapid.SliceOfN(rapid.StringMatching(`[ab.K]{0,4}`), 1, maxStars+1).Draw(t, "parts")
		value := rapid.StringMatching(`[abkK.]{0,14}`).Draw(t, "value")
		if rapid.Bool().Draw(t, "made to match") {
			var b strings.Builder
			for i, part := range parts {
				if i > 0 {
					b.WriteString(rapid.StringMatching(`[ab.]{0,3}`).Draw(t, "between"))
				}
				b.WriteString(part)
			}
			value = b.String()
		}
		kind := rapid.SampledFrom([]string{"CN=", "DNS:"}).Draw(t, "kind")
		text := kind + strings.Join(parts, "*")
		p, err := parsePattern(text)
		if text == kind {
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		var quoted []string
		for _, part := range parts {
			quoted = append(quoted, regexp.QuoteMeta(part))
		}
		flags, cert := "(?s)", &x509.Certificate{DNSNames: []string{value}}
		if kind == "DNS:" {
			flags = "(?si)"
		}
		cert.Subject.Names = []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: value}}
		want := regexp.MustCompile(flags + `\A` + strings.Join(quoted, ".*") + `\z`).MatchString(value)
		require.Equal(t, want, p.matches(cert), "%s against %q", text, value)
	})
}

// TestPatternsTakeNoTime gives the worst that the limits allow.
func TestPatternsTakeNoTime(t *testing.T) {
	p, err := parsePattern("CN=" + strings.Repeat("*"+strings.Repeat("a", 30), maxStars) + "b")
	require.NoError(t, err)
	value := strings.Repeat("a", 64<<10)
	began := time.Now()
	for range 20 {
		require.False(t, p.fits(value))
	}
	require.Less(t, time.Since(began), time.Second)
}
