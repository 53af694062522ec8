package integration

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/customer"
	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/rig"
)

// noSecretInTheOpen greps everything that an operator or an unprivileged
// process in a guest can read for every secret that was minted, after bootd has
// been asked for things with them in right and in wrong places.
func noSecretInTheOpen(t *testing.T, r *rig.Rig) {
	script, err := r.Server.Nestctl(t.Context(), "artifact", "download", rig.Set, "ipxe-chain", "-o", "-")
	require.NoError(t, err)
	addresses, err := r.Server.Nestctl(t.Context(), "artifact", "show", rig.Set, "-o", "json")
	require.NoError(t, err)
	chain, uefi := chainURL(t, r, "canary"), uefiURL(t, r, "canary", rig.Set)
	open := useAndAbuse(t, addresses, chain, uefi)
	customersKey := offerKey(t, r)
	open = append(open, explainAndEnd(t, r, chain, uefi)...)
	open = append(open, toldToOperators(t, r)...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, r.Server.Proc.Stop(ctx), "bootd stops with exit code 0")

	secrets := mintedSecrets(t, r.Server.StateDir())
	require.Positive(t, len(secrets.digests), "grants and tokens were minted")
	require.Positive(t, len(secrets.fragments), "keys were made")
	urls := []byte(strings.Join([]string{chain.HTTP, chain.HTTPS, uefi.HTTP, uefi.HTTPS}, "\n"))
	secrets.addTokens(append(addresses, urls...))
	require.NotEmpty(t, secrets.in(script), "control: the script of a set does hold a key")
	require.NotEmpty(t, secrets.in(addresses), "control: an address does hold a token")
	require.NotEmpty(t, secrets.in(urls), "control: a URL does hold a token")
	secrets.addKeys(customersKey)

	for _, seen := range open {
		require.Empty(t, secrets.in([]byte(seen.text)), seen.what)
	}
	noSecretInState(t, r, secrets)
	noSecretInLogs(t, r, secrets)
}

func noSecretInLogs(t *testing.T, r *rig.Rig, secrets secrets) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(filepath.Dir(r.Server.Dir), "*.log"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(logs), 6, "bootd's runs, dnsmasq and the machines")
	for _, log := range logs {
		text, err := os.ReadFile(log)
		require.NoError(t, err)
		require.Empty(t, secrets.in(text), log)
		if strings.HasPrefix(filepath.Base(log), "pxe") {
			require.Contains(t, string(text), "LAB-CMDLINE", "the guest's command line is in what was searched")
		}
	}
}

// noSecretInState looks through all files of the state but those that secrets
// belong in: each must be in its own file alone.
func noSecretInState(t *testing.T, r *rig.Rig, secrets secrets) {
	t.Helper()
	searched := 0
	require.NoError(t, filepath.WalkDir(r.Server.StateDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "bases" { // other people's programs, as they came
			return filepath.SkipDir
		}
		if !d.Type().IsRegular() || private(path) {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		searched++
		require.Empty(t, secrets.inFile(data), path)
		return nil
	}))
	require.Greater(t, searched, 5, "certificates and the store")
}

// shown is something that somebody could read.
type shown struct{ what, text string }

// useAndAbuse asks for what addresses and URLs lead to, and for what they do
// not, and returns all answers that are no file.
func useAndAbuse(t *testing.T, addresses []byte, chain, uefi tokenURL) (answers []shown) {
	t.Helper()
	client := insecureClient(t)
	artifact := fmt.Sprintf("https://boot.%s%s/%s.efi", rig.Domain, address.Find(addresses), rig.Set)
	token := func(url string) string { return address.FindStringSubmatch(url)[1] }
	for _, ask := range []struct {
		method, url string
		status      int
	}{
		{http.MethodGet, artifact, http.StatusOK},
		{http.MethodGet, artifact + "/gone", http.StatusNotFound},
		{http.MethodGet, chain.HTTP, http.StatusOK},
		{http.MethodHead, chain.HTTPS, http.StatusOK},
		{http.MethodPost, chain.HTTPS, http.StatusMethodNotAllowed},
		{http.MethodGet, chain.HTTPS + "/ipxe/boot", http.StatusOK}, // a plan that says what is wrong
		{http.MethodGet, chain.HTTPS + "/ipxe/images/lab/" + token(chain.HTTP), http.StatusNotFound},
		{http.MethodGet, chain.HTTPS + "/" + token(uefi.HTTP), http.StatusNotFound},
		{http.MethodGet, uefi.HTTP, http.StatusOK},
		{http.MethodGet, uefi.HTTPS, http.StatusOK},
		{http.MethodPut, uefi.HTTPS, http.StatusMethodNotAllowed},
		{http.MethodGet, strings.Replace(uefi.HTTP, rig.Set+".efi", "x/"+token(chain.HTTP), 1), http.StatusNotFound},
		{http.MethodGet, "https://boot." + rig.Domain + "/uefi/" + token(chain.HTTP) + "/" + rig.Set + ".efi", http.StatusNotFound},
		{http.MethodGet, "http://boot." + rig.Domain + "/chain/" + token(uefi.HTTP), http.StatusNotFound},
		{http.MethodGet, "http://boot." + rig.Domain + "/" + token(uefi.HTTP), http.StatusNotFound},
		{http.MethodGet, "https://boot." + rig.Domain + "/artifacts/" + rig.Set + ".efi/" + token(uefi.HTTP), http.StatusNotFound},
		{http.MethodGet, "https://boot." + rig.Domain + "/ipxe/ignition?token=" + token(chain.HTTP), http.StatusUnauthorized},
	} {
		status, body := request(t, client, ask.method, ask.url, nil)
		require.Equal(t, ask.status, status, "%s %s: %s", ask.method, ask.url, body)
		if status != http.StatusOK {
			answers = append(answers, shown{ask.method + " " + ask.url, body})
		}
	}
	status, body := request(t, client, http.MethodGet, "https://boot."+rig.Domain+"/ipxe/ignition", http.Header{
		"Authorization": {"Bearer " + token(chain.HTTP)}, "User-Agent": {token(uefi.HTTP)}, "Referer": {chain.HTTPS},
	})
	require.Equal(t, http.StatusUnauthorized, status)
	return append(answers, shown{"a token for a grant", body})
}

// insecureClient finds bootd without DNS, over HTTP and HTTPS.
func insecureClient(t *testing.T) *http.Client {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // who answers is not in question here
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(lab.ServerIP, port))
		},
	}}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func request(t *testing.T, client *http.Client, method, url string, header http.Header) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	require.NoError(t, err)
	if header != nil {
		req.Header = header
	}
	res, err := client.Do(req)
	require.NoError(t, err)
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	return res.StatusCode, string(text)
}

// offerKey is a mistake that is bound to happen: an authority's file with its
// private key is registered. It must go nowhere.
func offerKey(t *testing.T, r *rig.Rig) (key []byte) {
	t.Helper()
	dir := t.TempDir()
	ca, err := customer.NewRoot(customer.P256, "Careless")
	require.NoError(t, err)
	leaf, err := ca.Issue(customer.Leaf{Name: "careless"})
	require.NoError(t, err)
	require.NoError(t, customer.WriteKey(filepath.Join(dir, "key"), leaf.Key))
	require.NoError(t, customer.WriteCerts(filepath.Join(dir, "cert"), ca.Cert))
	key, err = os.ReadFile(filepath.Join(dir, "key"))
	require.NoError(t, err)
	cert, err := os.ReadFile(filepath.Join(dir, "cert"))
	require.NoError(t, err)
	both := filepath.Join(dir, "both")
	require.NoError(t, os.WriteFile(both, append(cert, key...), 0o600))
	_, err = r.Server.Nestctl(t.Context(), "trust", "add", "careless", "--ca", both)
	require.ErrorContains(t, err, "private key")
	mine := secrets{digests: map[string]bool{}}
	mine.addKeys(key)
	require.Empty(t, mine.in([]byte(err.Error())))
	return key
}

// explainAndEnd asks why a token is accepted, ends it, and asks and uses it
// again.
func explainAndEnd(t *testing.T, r *rig.Rig, chain, uefi tokenURL) (answers []shown) {
	t.Helper()
	client := insecureClient(t)
	for url, kind := range map[string]string{chain.HTTPS: "chain", uefi.HTTPS: "uefi"} {
		token := address.FindStringSubmatch(url)[1]
		for _, status := range []int{http.StatusOK, http.StatusForbidden} {
			got, body := request(t, client, http.MethodGet, url, nil)
			require.Equal(t, status, got, body)
			if status != http.StatusOK {
				answers = append(answers, shown{"a revoked " + kind + " URL", body})
			}
			out, err := r.Server.Nestctl(t.Context(), "auth", "explain", "--token", token)
			if err != nil { // it ends with an error where the answer is no
				out = fmt.Append(out, err.Error()[strings.LastIndex(err.Error(), "]"):]) // without our own arguments
			}
			answers = append(answers, shown{"explained " + kind + " token", string(out)})
			if status == http.StatusOK {
				out, err := r.Server.Nestctl(t.Context(), "url", "revoke", "canary", "--kind", kind)
				require.NoError(t, err)
				answers = append(answers, shown{"url revoke", string(out)})
			}
		}
	}
	return answers
}

// toldToOperators is what lists and metrics show, which people paste elsewhere.
func toldToOperators(t *testing.T, r *rig.Rig) (answers []shown) {
	t.Helper()
	for _, command := range []string{
		"url list", "trust list", "cert list", "ca status", "artifact list", "machine list", "events", "events -o json",
	} {
		out, err := r.Server.Nestctl(t.Context(), strings.Fields(command)...)
		require.NoError(t, err)
		require.NotEmpty(t, bytes.TrimSpace(out), command)
		answers = append(answers, shown{command, string(out)})
	}
	metrics := &http.Client{Timeout: time.Minute}
	defer metrics.CloseIdleConnections()
	status, body := request(t, metrics, http.MethodGet, "http://127.0.0.1:9090/metrics", nil)
	require.Equal(t, http.StatusOK, status)
	return append(answers, shown{"metrics", body})
}
