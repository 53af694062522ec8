package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestStatusShowsTheRootThatIsTrusted: with given certificates that is not the
// root that issues to machines.
func TestStatusShowsTheRootThatIsTrusted(t *testing.T) {
	cert := func(name string, year int) shownCert {
		return shownCert{Subject: "CN=" + name, Fingerprint: name, NotAfter: time.Date(year, 1, 2, 0, 0, 0, 0, time.UTC)}
	}
	own := generation{Number: 1, Host: "ipxe.test", URL: "https://ipxe.test:8443", Trust: cert("inner", 2046), Root: cert("inner", 2046)}
	given := generation{Number: 2, Host: "ipxe-2.test", Trust: cert("corp", 2027), Root: cert("inner2", 2046)}
	third := generation{Number: 3, Host: "ipxe-3.test", Newest: true, Trust: cert("corp", 2027), Root: cert("inner3", 2046)}
	var a authorityAnswer
	a.Authority.Generations = []generation{own, given, third}
	var out bytes.Buffer
	require.NoError(t, printAuthority(&out, a))
	require.Contains(t, out.String(), "https://ipxe.test:8443")
	require.Regexp(t, `(?m)^2 .* 2027-01-02 `, out.String())
	require.Regexp(t, `(?m)^2 +corp +of the given certificates: CN=corp$`, out.String())
	require.NotContains(t, out.String(), "inner2")
	require.Contains(t, out.String(), "warning: machines of generations 2 and 3 trust the same root")
	require.NotContains(t, out.String(), "generations 1 and")

	out.Reset()
	require.NoError(t, printGivenRoot(&out, third, a.Authority.Generations))
	require.Contains(t, out.String(), "ipxe-3.test too, as a wildcard does")
	out.Reset()
	require.NoError(t, printGivenRoot(&out, own, a.Authority.Generations[:1]))
	require.Empty(t, out.String())

	out.Reset()
	require.NoError(t, printNewTrusted(&out, trustedAnswer{}, third))
	require.Contains(t, out.String(), "--root root.pem --url  (nestctl ca export --generation 3 > root.pem)")
}

// TestWarningsAreTakenTogether: a wildcard is shown for many names.
func TestWarningsAreTakenTogether(t *testing.T) {
	var a authorityAnswer
	for _, host := range []string{"boot.test", "ipxe.test", "app.test"} {
		a.Authority.Servers = append(a.Authority.Servers, serverName{Host: host, Answered: host != "app.test", Warnings: []string{"wild.pem: it ends", "wild.pem: it ends"}})
	}
	var out bytes.Buffer
	require.NoError(t, printAuthority(&out, a))
	require.Contains(t, out.String(), "warning: boot.test, ipxe.test, app.test: wild.pem: it ends\n")
	require.Equal(t, 1, bytes.Count(out.Bytes(), []byte("warning:")))
	require.NotRegexp(t, `(?m)^app.test`, out.String())
}
