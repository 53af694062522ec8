package httpboot

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/pki"
)

// Tokens of URLs, as long as real ones.
var (
	chainToken = strings.Repeat("c", 43)
	uefiToken  = strings.Repeat("u", 43)
	wrongToken = strings.Repeat("w", 43)
)

// TestChainURLBoots goes through a boot as a provider's iPXE does, which has no
// certificate: over HTTPS, and over plain HTTP by an address of its own choice.
func TestChainURLBoots(t *testing.T) {
	for _, over := range []string{"https", "http"} {
		t.Run(over, func(t *testing.T) {
			w := start(t)
			w.who.give(pki.KindURL, "provider-a", chainToken, time.Time{}, over)
			base, c := "https://boot.test", w.client(client{})
			if over == "http" {
				base, c = "http://"+w.plain, http.DefaultClient
			}
			url := base + "/chain/" + chainToken
			a := w.do(c, http.MethodGet, url)
			require.Equal(t, http.StatusOK, a.status)
			require.Equal(t, "no-store", a.header.Get("Cache-Control"))
			want, err := boot.ChainScript("provider-a", url)
			require.NoError(t, err)
			require.Equal(t, string(want), a.body)
			require.Equal(t, "url provider-a", w.event(boot.StageChain, "").Credential)
			head := w.do(c, http.MethodHead, url)
			require.Equal(t, []string{fmt.Sprint(len(a.body))}, head.header.Values("Content-Length"))

			a = w.do(c, http.MethodGet, url+testQuery)
			require.Equal(t, http.StatusOK, a.status)
			require.Contains(t, a.body, "kernel --name vmlinuz "+url+"/ipxe/images/lab/vmlinuz")
			require.Contains(t, a.body, "initrd "+url+"/ipxe/initrd/b00t")
			e := w.event(boot.StageScript, "boots image lab")
			require.Equal(t, [2]string{testUUID, "url provider-a"}, [2]string{e.Machine, e.Credential})

			require.Len(t, w.do(c, http.MethodGet, url+"/ipxe/images/lab/vmlinuz").body, 4<<20)
			a = w.do(c, http.MethodGet, url+"/ipxe/initrd/b00t")
			require.Equal(t, http.StatusOK, a.status)
			require.Equal(t, "https://boot.test/ipxe/ignition", pointer(t, a.body).Source, "the config comes over HTTPS either way")
			w.noSecrets("." + chainToken)
		})
	}
}

func TestChainURLIsRefused(t *testing.T) {
	w := start(t)
	now := time.Now()
	w.who.give(pki.KindURL, "secure", chainToken, time.Time{}, "https")
	w.who.give(pki.KindURL, "old", strings.Repeat("o", 43), now.Add(-time.Minute), "https")
	gone := w.who.give(pki.KindURL, "gone", strings.Repeat("g", 43), time.Time{}, "https")
	w.who.give(pki.KindUEFI, "files", uefiToken, time.Time{}, "https", "http")
	w.who.refuse(gone.Fingerprint, pki.CodeRevoked)
	secure, plain := "https://boot.test/chain/", "http://"+w.plain+"/chain/"
	for _, tt := range []struct {
		url    string
		status int
		code   string
		who    string
	}{
		{plain + chainToken, http.StatusForbidden, pki.CodeNotAllowed, "url secure"},
		{secure + strings.Repeat("o", 43), http.StatusForbidden, pki.CodeExpired, "url old"},
		{secure + strings.Repeat("g", 43), http.StatusForbidden, pki.CodeRevoked, "url gone"},
		{secure + uefiToken, http.StatusNotFound, pki.CodeUnknownToken, ""},
		{secure + wrongToken, http.StatusNotFound, pki.CodeUnknownToken, ""},
		{secure, http.StatusNotFound, pki.CodeUnknownToken, ""},
	} {
		c := w.client(client{})
		if strings.HasPrefix(tt.url, plain) {
			c = http.DefaultClient
		}
		for _, path := range []string{"", testQuery, "/ipxe/images/lab/vmlinuz", "/ipxe/initrd/b00t"} {
			w.forgive() // for their limit has a test of its own
			a := w.do(c, http.MethodGet, tt.url+path)
			require.Equal(t, answer{tt.status, tt.code + "\n", a.header}, a, tt.url+path)
		}
		e := w.event(boot.StageScript, tt.code)
		require.Equal(t, tt.who, e.Credential)
	}
	for _, path := range []string{"/", "/x", "/ipxe/", "/ipxe/x", "/ipxe/ignition", "//", "/../../artifacts/"} {
		require.Equal(t, http.StatusNotFound, w.do(w.client(client{}), http.MethodGet, secure+chainToken+path).status, path)
	}
	require.Equal(t, http.StatusMethodNotAllowed, w.do(w.client(client{}), http.MethodPost, secure+chainToken).status)
	require.Equal(t, http.StatusNotFound, w.do(w.client(client{cert: w.setCert()}), http.MethodGet, "https://ipxe.test/chain/"+chainToken).status,
		"not under the name that requests certificates")
	w.noSecrets("."+chainToken, "."+uefiToken, "."+wrongToken)
}

// TestT17_HostCannotAddToAScript sends names that are none.
func TestT17_HostCannotAddToAScript(t *testing.T) {
	w := start(t)
	w.who.give(pki.KindURL, "a", chainToken, time.Time{}, "http")
	for host, status := range map[string]int{
		"boot.test": http.StatusOK, "10.0.0.1:8080": http.StatusOK, "[fd00::1]:80": http.StatusOK, "": http.StatusBadRequest,
		"${uuid}": http.StatusBadRequest, "a||b": http.StatusBadRequest, "a/b": http.StatusBadRequest, "a;b": http.StatusBadRequest, "u@h": http.StatusBadRequest,
		strings.Repeat("a", 254): http.StatusBadRequest,
	} {
		c, err := net.Dial("tcp", w.plain)
		require.NoError(t, err)
		_, err = io.WriteString(c, "GET /chain/"+chainToken+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		require.NoError(t, err)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		require.NoError(t, err, host)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.NoError(t, c.Close())
		require.Equal(t, status, res.StatusCode, host)
		if status == http.StatusOK {
			require.Contains(t, string(body), "chain --autofree http://"+host+"/chain/"+chainToken+"/ipxe/boot?")
		}
	}
}

// FuzzT17_HostForm: what is let into a script adds nothing to it.
func FuzzT17_HostForm(f *testing.F) {
	for _, host := range []string{"boot.test", "10.0.0.1:8080", "[fd00::1]:80", "${uuid}", "a\nshell", ":80", "[]", "-"} {
		f.Add(host)
	}
	want, err := boot.ChainScript("a", "http://boot.test/chain/x")
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, host string) {
		if !hostForm.MatchString(host) {
			return
		}
		got, err := boot.ChainScript("a", "http://"+host+"/chain/x")
		if err != nil {
			return // no host for net/url either
		}
		require.Equal(t, strings.ReplaceAll(string(want), "boot.test", host), string(got))
	})
}

func TestUEFIURLServesASetsFiles(t *testing.T) {
	w := start(t)
	w.who.give(pki.KindUEFI, "rack1-efi", uefiToken, time.Time{}, "https", "http")
	w.who.give(pki.KindUEFI, "secure", strings.Repeat("s", 43), time.Time{}, "https")
	w.who.give(pki.KindURL, "chain", chainToken, time.Time{}, "https", "http")
	clients := map[string]*http.Client{"https://boot.test": w.client(client{}), "http://" + w.plain: http.DefaultClient}
	for base, c := range clients {
		url := base + "/uefi/" + uefiToken + "/"
		a := w.do(c, http.MethodHead, url+"rack1.efi")
		require.Equal(t, fmt.Sprint(len(bigFile)), a.header.Get("Content-Length"))
		require.Equal(t, "no-store", a.header.Get("Cache-Control"))
		for _, name := range []string{"rack1.efi", "autoexec.ipxe"} {
			require.Len(t, w.do(c, http.MethodGet, url+name).body, len(bigFile))
		}
		e := w.event(boot.StageArtifact, "")
		require.Equal(t, [2]string{"uefi-url rack1-efi", "autoexec.ipxe"}, [2]string{e.Credential, e.Name})
		w.forgive()
		for path, status := range map[string]int{
			uefiToken + "/0badf00d.ipxe": http.StatusNotFound, uefiToken: http.StatusNotFound, uefiToken + "/": http.StatusNotFound,
			uefiToken + "/rack1.raw": http.StatusForbidden, wrongToken + "/rack1.efi": http.StatusNotFound,
			chainToken + "/rack1.efi": http.StatusNotFound, "rack1.efi/" + uefiToken: http.StatusNotFound, "": http.StatusNotFound,
		} {
			a := w.do(c, http.MethodGet, base+"/uefi/"+path)
			require.Equal(t, status, a.status, path)
		}
		require.Equal(t, http.StatusMethodNotAllowed, w.do(c, http.MethodPut, url+"rack1.efi").status)
	}
	a := w.do(http.DefaultClient, http.MethodHead, "http://"+w.plain+"/uefi/"+strings.Repeat("s", 43)+"/rack1.efi")
	require.Equal(t, http.StatusForbidden, a.status)
	e := w.event(boot.StageArtifact, pki.CodeNotAllowed)
	require.Equal(t, "uefi-url secure", e.Credential, "a HEAD that is refused is recorded: firmware asks no more")
	w.noSecrets("."+chainToken, "."+uefiToken, "."+wrongToken)
}
