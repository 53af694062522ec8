package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// asked is a JSON object.
type asked map[string]any

// post creates something and returns its object.
func (d *running) post(path, noun string, body asked) asked {
	d.t.Helper()
	data, err := json.Marshal(body)
	require.NoError(d.t, err)
	var answer map[string]asked
	d.admin(http.MethodPost, path, string(data), http.StatusCreated, &answer)
	return answer[noun]
}

// clientWith is client with a certificate of somebody else's.
func (d *running) clientWith(cert tls.Certificate) *http.Client {
	d.t.Helper()
	c := d.client("")
	tr, ok := c.Transport.(*http.Transport)
	require.True(d.t, ok)
	tr.TLSClientConfig.Certificates = []tls.Certificate{cert}
	return c
}

// local is an address of bootd's as this host reaches it.
func (d *running) local(url string) string {
	url = strings.ReplaceAll(url, "boot.test:"+portOf(d.t, d.ports.http), d.ports.http)
	return strings.ReplaceAll(url, "boot.test:"+portOf(d.t, d.ports.https), "boot.test")
}

// TestT13_CertificatesOfOthers has a machine boot with a certificate of its
// customer's authority, and with a pinned one, until they are removed.
func TestT13_CertificatesOfOthers(t *testing.T) {
	d := newDaemon(t, "")
	d.start()
	corp := newCorporate(t, "Corporate CA")
	node := d.clientWith(corp.machine("node-7"))
	ask := func(c *http.Client, digit string) string {
		status, body := d.ask(c, http.MethodGet, bootURL(digit))
		return fmt.Sprint(status, " ", strings.Split(body, "\n")[0])
	}
	require.Equal(t, "403 unknown-ca", ask(node, "1"))

	added := d.post("/trusted_certificates", "trusted_certificate", asked{
		"name": "corp", "kind": "ca", "pem": corp.pem(), "allow": []string{"CN=node-*"}, "machines": []string{machineUUID("1")},
	})
	require.Equal(t, "200 #!ipxe", ask(node, "1"))
	require.Equal(t, "403 machine-not-allowed", ask(node, "2"), "the entry is limited to another machine")
	require.Equal(t, "403 not-allowed", ask(d.clientWith(corp.machine("guest")), "1"), "its name is not on the list")
	server := corp.server("node-7")
	require.Equal(t, "403 wrong-usage", ask(d.clientWith(server), "1"))
	path := fmt.Sprintf("/trusted_certificates/%.0f", added["id"])
	var shown struct {
		Trusted struct {
			Uses   int
			UsedBy []struct{ Subject, Machine string } `json:"used_by"`
		} `json:"trusted_certificate"`
	}
	d.admin(http.MethodGet, path, "", http.StatusOK, &shown)
	require.Equal(t, 1, shown.Trusted.Uses)
	require.Equal(t, machineUUID("1"), shown.Trusted.UsedBy[0].Machine)
	require.Equal(t, "node-7", shown.Trusted.UsedBy[0].Subject)
	require.Contains(t, d.machines(), `"credential":"ca corp"`)

	d.admin(http.MethodDelete, path, "", http.StatusOK, nil)
	require.Equal(t, "403 revoked", ask(node, "1"), "at once, on the open connection or on a new one")

	pinned := corp.machine("node-8")
	d.post("/trusted_certificates", "trusted_certificate", asked{"name": "node8", "kind": "pin", "pem": certPEM(pinned.Certificate[0])})
	require.Equal(t, "200 #!ipxe", ask(d.clientWith(pinned), "2"))
	require.NotContains(t, ask(d.clientWith(corp.machine("node-8")), "2"), "200", "the right authority and name, but not the pinned one")
}

// TestT12_TrustEndsOnOpenConnections removes trust of each kind while its
// machine keeps a connection open, and waits for it to be closed.
func TestT12_TrustEndsOnOpenConnections(t *testing.T) {
	d := newDaemon(t, "")
	d.start()
	corp := newCorporate(t, "Corporate CA")
	d.create(`{"name":"rack1"}`)
	chain := d.post("/ipxe_chain_urls", "ipxe_chain_url", asked{"name": "metal"})
	uefi := d.post("/ipxe_boot_artifacts/1/uefi_http_boot_urls", "uefi_http_boot_url", asked{"name": "dc"})
	d.post("/trusted_certificates", "trusted_certificate", asked{"name": "corp", "kind": "ca", "pem": corp.pem()})
	pinned := newCorporate(t, "Other CA").machine("x")
	d.post("/trusted_certificates", "trusted_certificate", asked{"name": "x", "kind": "pin", "pem": certPEM(pinned.Certificate[0])})
	var issued struct{ Certificates []struct{ Serial string } }
	d.admin(http.MethodGet, "/certificates", "", http.StatusOK, &issued)
	require.Len(t, issued.Certificates, 1)

	for name, tt := range map[string]struct {
		client  *http.Client
		url     string
		end     string // DELETE
		refused string
	}{
		"authority":   {d.clientWith(corp.machine("node")), bootURL("1"), "/trusted_certificates/1", "403 revoked"},
		"pin":         {d.clientWith(pinned), bootURL("2"), "/trusted_certificates/2", "403 revoked"},
		"chain URL":   {d.client(""), d.local(chain["url"].(string)) + strings.TrimPrefix(bootURL("3"), "https://ipxe.test"), "/ipxe_chain_urls/1", "403 revoked"},
		"UEFI URL":    {d.client(""), d.local(uefi["https_url_amd64"].(string)), "/ipxe_boot_artifacts/1/uefi_http_boot_urls/1", "403 revoked"},
		"certificate": {d.client("rack1-1"), bootURL("4"), "/certificates/" + issued.Certificates[0].Serial, "403 revoked"},
	} {
		t.Run(name, func(t *testing.T) {
			closed := make(chan struct{})
			tr := tt.client.Transport.(*http.Transport)
			dial := tr.DialContext
			tr.DialContext = watchClose(dial, closed)
			status, body := d.ask(tt.client, http.MethodGet, tt.url)
			require.Equal(t, http.StatusOK, status, body)
			start := time.Now()
			d.admin(http.MethodDelete, tt.end, "", http.StatusOK, nil)
			select {
			case <-closed:
			case <-time.After(5 * time.Second):
				require.Fail(t, "the connection stayed open")
			}
			require.Less(t, time.Since(start), time.Second)
			status, body = d.ask(tt.client, http.MethodGet, tt.url)
			require.Equal(t, tt.refused, fmt.Sprint(status, " ", strings.TrimSpace(body)))
		})
	}
	d.waitLog("stage=cut-off")
}

// TestURLsAnswerWhatTheyShow walks the URLs that the API shows.
func TestURLsAnswerWhatTheyShow(t *testing.T) {
	d := newDaemon(t, "log: {level: debug}\n")
	d.copyIPXE("ipxe", "ipxe-arm64.efi")
	d.start()
	d.create(`{"name":"rack1","exposure":[]}`)
	both := d.post("/ipxe_chain_urls", "ipxe_chain_url", asked{"name": "both", "protocols": "http_and_https", "machines": []string{machineUUID("1")}})
	secure := d.post("/ipxe_chain_urls", "ipxe_chain_url", asked{"name": "secure"})
	uefi := d.post("/ipxe_boot_artifacts/1/uefi_http_boot_urls", "uefi_http_boot_url", asked{"name": "dc", "protocols": "http_and_https"})
	secureClient := d.client("")
	ask := func(method, url string) (int, string) {
		if strings.HasPrefix(url, "http:") {
			return d.ask(http.DefaultClient, method, url)
		}
		return d.ask(secureClient, method, url)
	}

	require.Equal(t, both["https_url"], both["url"], "plain HTTP is for where that can't be had")
	status, script := ask(http.MethodGet, d.local(both["url"].(string)))
	require.Equal(t, http.StatusOK, status, script)
	require.Equal(t, both["script"], script)
	require.Contains(t, script, "uuid=${uuid}")
	for _, of := range []string{"http_url", "https_url"} {
		base := d.local(both[of].(string))
		status, plan := ask(http.MethodGet, base+strings.TrimPrefix(bootURL("1"), "https://ipxe.test"))
		require.Equal(t, http.StatusOK, status, plan)
		require.Contains(t, plan, "/ipxe/images/lab/vmlinuz")
		status, body := ask(http.MethodGet, base+strings.TrimPrefix(bootURL("2"), "https://ipxe.test"))
		require.Equal(t, "403 machine-not-allowed\n", fmt.Sprint(status, " ", body))
	}
	plain := strings.Replace(secure["url"].(string), "https://boot.test:"+portOf(t, d.ports.https), "http://"+d.ports.http, 1)
	status, body := ask(http.MethodGet, plain)
	require.Equal(t, "403 not-allowed\n", fmt.Sprint(status, " ", body), "good over https only")

	for _, field := range []string{"http_url_amd64", "http_url_arm64", "https_url_amd64", "https_url_arm64"} {
		at := d.local(uefi[field].(string))
		status, body := ask(http.MethodGet, at)
		require.Equal(t, http.StatusOK, status, field)
		require.True(t, strings.HasPrefix(body, "MZ"), field)
		status, _ = ask(http.MethodHead, at)
		require.Equal(t, http.StatusOK, status, field)
		status, body = ask(http.MethodGet, at[:strings.LastIndex(at, "/")]+"/autoexec.ipxe")
		require.Equal(t, http.StatusOK, status, field)
		require.True(t, strings.HasPrefix(body, "#!ipxe"))
		for _, other := range []string{"/rack1.iso", "/rack1.ipxe", "/", "/rack1/snponly.efi", ""} {
			status, _ = ask(http.MethodGet, at[:strings.LastIndex(at, "/")]+other)
			require.Equal(t, http.StatusNotFound, status, "it serves the EFI files alone: %s", other)
		}
	}
	for _, u := range []string{both["url"].(string), uefi["http_url_amd64"].(string)} {
		require.NotContains(t, d.log.String(), strings.Split(u, "/")[4], "tokens are not logged (T19)")
	}
	d.admin(http.MethodDelete, "/ipxe_boot_artifacts/1", "", http.StatusOK, nil)
	status, _ = ask(http.MethodGet, d.local(uefi["http_url_amd64"].(string)))
	require.Equal(t, http.StatusForbidden, status, "a set's URLs end with it")
	d.admin(http.MethodGet, "/token_urls", "", http.StatusOK, nil)
}

// TestT30_NoKeyLiesInClear gives an installation a key-encryption key after it
// has begun without one, and looks for private keys in all of its files.
func TestT30_NoKeyLiesInClear(t *testing.T) {
	d := newDaemon(t, "")
	d.start()
	d.create(`{"name":"rack1","exposure":["tftp"]}`)
	key := d.key("rack1-1")
	secret, err := os.ReadFile(filepath.Join(d.dir, "state/sets/token.secret"))
	require.NoError(t, err)
	url := d.post("/ipxe_chain_urls", "ipxe_chain_url", asked{"name": "metal"})["url"]
	d.stop()
	require.NotEmpty(t, d.clear(key, secret), "the search finds what is there")

	d.write("pass", "correct horse battery staple\n")
	d.edit("state_dir: state", "state_dir: state\nkeys: {passphrase_file: pass}")
	d.start()
	d.waitLog("private files were encrypted")
	d.create(`{"name":"rack2"}`)
	d.admin(http.MethodPost, "/authority/rotate", `{"root":true}`, http.StatusOK, nil)
	script, err := d.tftp("rack1.ipxe")
	require.NoError(t, err)
	require.True(t, holdsKey(script, key), "the set works")
	var shown map[string]asked
	d.admin(http.MethodGet, "/ipxe_chain_urls/1", "", http.StatusOK, &shown)
	require.Equal(t, url, shown["ipxe_chain_url"]["url"], "and the URL can be shown")
	d.stop()
	require.Empty(t, d.clear(key, secret))

	d.write("pass", "another passphrase\n")
	require.Contains(t, d.refused(), "keys.passphrase_file")
	d.edit("\nkeys: {passphrase_file: pass}", "")
	require.Contains(t, d.refused(), "set keys.passphrase_file")
}

// clear lists files below the state directory with a private key or a secret
// in clear.
func (d *running) clear(key, secret []byte) []string {
	d.t.Helper()
	var found []string
	require.NoError(d.t, filepath.WalkDir(filepath.Join(d.dir, "state"), func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if holdsKey(data, key) || bytes.Contains(data, bytes.TrimSpace(secret)) {
			found = append(found, path)
		}
		return err
	}))
	return found
}

// TestT10_LegacyListener speaks to firmware of 2022 on a port of its own, and
// to nobody else so.
func TestT10_LegacyListener(t *testing.T) {
	d := newDaemon(t, "")
	legacy := d.ports.legacy
	d.edit("listen: {", fmt.Sprintf("listen: {legacy_https: %q, ", legacy))
	d.start()
	d.create(`{"name":"rack1"}`)
	uefi := d.post("/ipxe_boot_artifacts/1/uefi_http_boot_urls", "uefi_http_boot_url", asked{"name": "old"})
	old := &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}, RootCAs: d.roots(1), ServerName: "boot.test"}
	c, err := tls.Dial("tcp", legacy, old)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	_, err = tls.Dial("tcp", d.ports.https, old)
	require.Error(t, err)
	client := d.client("")
	tr := client.Transport.(*http.Transport)
	tr.TLSClientConfig = old
	tr.DialContext = dialTo(legacy)
	status, body := d.ask(client, http.MethodGet, d.local(uefi["https_url_amd64"].(string)))
	require.Equal(t, http.StatusOK, status)
	require.True(t, strings.HasPrefix(body, "MZ"))
	status, _ = d.ask(client, http.MethodGet, strings.Replace(bootURL("1"), "ipxe.test", "boot.test", 1))
	require.Equal(t, http.StatusNotFound, status, "files alone")
}
