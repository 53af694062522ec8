package admin

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/artifact"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/links"
)

const chainPath = base + "/ipxe_chain_urls"

// TestURLsGolden goes through the life of URLs as a client of the reference API
// does: with doubled and trailing slashes, nothing but the fields that it
// knows, and null for those that are not set.
func TestURLsGolden(t *testing.T) {
	_, srv := start(t, someBases(t))
	status, _ := ask(t, srv, http.MethodPost, setsPath, `{"name":"rack1"}`)
	require.Equal(t, 201, status)
	doubled := "/api/v1//orgs/" + org
	uefi := doubled + "/ipxe_boot_artifacts/1/uefi_http_boot_urls/"
	for _, step := range []struct {
		name, method, path, body string
		status                   int
	}{
		{"chain-created", http.MethodPost, doubled + "/ipxe_chain_urls/", `{"name":"metal1","expires_at":"2031-01-31T23:59:59Z"}`, 201},
		{"chain", http.MethodGet, doubled + "/ipxe_chain_urls/1", "", 200},
		{"chain-http", http.MethodPost, chainPath, `{"name":"Lab 2","expires_at":null,"protocols":"http_and_https","machines":["` + strings.ToUpper(machineID) + `"]}`, 201},
		{"chain-taken", http.MethodPost, chainPath, `{"name":"METAL1","expires_at":null}`, 422},
		{"chain-wrong", http.MethodPost, chainPath, `{"name":"","expires_at":"2020-01-01T00:00:00Z","machines":["x"]}`, 422},
		{"uefi-created", http.MethodPost, uefi, `{"name":"dc1","expires_at":null,"protocols":"http_and_https"}`, 201},
		{"uefi", http.MethodGet, uefi + "1", "", 200},
		{"uefi-https", http.MethodPost, uefi, `{"name":"dc2","expires_at":"2031-01-31T23:59:59Z","protocols":"https_only"}`, 201},
		{"uefi-wrong", http.MethodPost, uefi, `{"name":"dc3","protocols":"https"}`, 422},
		{"uefis", http.MethodGet, uefi, "", 200},
		{"token-urls", http.MethodGet, base + "/token_urls", "", 200},
		{"uefi-revoked", http.MethodDelete, uefi + "1", "", 200},
		{"uefi-gone", http.MethodGet, uefi + "1", "", 404},
		{"chain-revoked", http.MethodDelete, doubled + "/ipxe_chain_urls//1/", "", 200},
		{"chain-gone", http.MethodGet, chainPath + "/1", "", 404},
		{"chains", http.MethodGet, chainPath, "", 200},
	} {
		status, got := ask(t, srv, step.method, step.path, step.body)
		require.Equal(t, step.status, status, "%s: %s", step.name, got)
		golden(t, step.name, steady(got))
	}
}

// TestURLComesBackAsItWas has GET give what create gave, the URL with its token
// too, and every input field as it went in.
func TestURLComesBackAsItWas(t *testing.T) {
	_, srv := start(t, someBases(t))
	status, _ := ask(t, srv, http.MethodPost, setsPath, `{"name":"rack1"}`)
	require.Equal(t, 201, status)
	for path, in := range map[string]string{
		chainPath:                           `{"name":"metal1","expires_at":"2031-01-31T23:59:59Z","protocols":"http_only","machines":["` + machineID + `"]}`,
		setsPath + "/1/uefi_http_boot_urls": `{"name":"metal1","expires_at":"2031-01-31T23:59:59.5Z","protocols":"http_and_https"}`,
	} {
		status, created := ask(t, srv, http.MethodPost, path, in)
		require.Equal(t, 201, status, created)
		status, read := ask(t, srv, http.MethodGet, path+"/1", "")
		require.Equal(t, 200, status)
		require.Equal(t, created, read)
		var out map[string]map[string]any
		require.NoError(t, json.Unmarshal([]byte(read), &out))
		var want map[string]any
		require.NoError(t, json.Unmarshal([]byte(in), &want))
		for _, object := range out {
			for field, value := range want {
				require.Equal(t, value, object[field], field)
			}
		}
	}
}

func TestURLRequestsThatAreRefused(t *testing.T) {
	_, srv := start(t, someBases(t))
	for _, name := range []string{"rack1", "rack2"} {
		status, _ := ask(t, srv, http.MethodPost, setsPath, `{"name":"`+name+`"}`)
		require.Equal(t, 201, status)
	}
	uefi := setsPath + "/1/uefi_http_boot_urls"
	status, _ := ask(t, srv, http.MethodPost, uefi, `{"name":"dc1"}`)
	require.Equal(t, 201, status)
	for name, tt := range map[string]struct {
		method, path, body string
		status             int
		want               string
	}{
		"no such protocol":     {http.MethodPost, chainPath, `{"name":"a","protocols":"tftp"}`, 422, `"protocols":["\"tftp\" is none of http_only, https_only, http_and_https"]`},
		"protocols as a list":  {http.MethodPost, chainPath, `{"name":"a","protocols":["https"]}`, 422, `"protocols":["a array is not what is wanted here"]`},
		"unknown field":        {http.MethodPost, chainPath, `{"name":"a","kind":"uefi-url"}`, 422, `"kind":["is not a field"]`},
		"another set's number": {http.MethodPost, uefi, `{"name":"a","set":2}`, 422, `"set":["is not a field"]`},
		"machines of a set":    {http.MethodPost, uefi, `{"name":"a","machines":["` + machineID + `"]}`, 422, `"machines":["`},
		"no time":              {http.MethodPost, chainPath, `{"name":"a","expires_at":"soon"}`, 422, `"expires_at":["is not a time like`},
		"of no set":            {http.MethodPost, setsPath + "/9/uefi_http_boot_urls", `{"name":"a"}`, 404, "not_found"},
		"of another set":       {http.MethodGet, setsPath + "/2/uefi_http_boot_urls/1", "", 404, "not_found"},
		"revoke of another":    {http.MethodDelete, setsPath + "/2/uefi_http_boot_urls/1", "", 404, "not_found"},
		"immutable":            {http.MethodPut, uefi + "/1", `{"name":"b"}`, 405, "only GET and DELETE"},
		"immutable chain":      {http.MethodPatch, chainPath + "/1", `{"name":"b"}`, 404, "not_found"},
		"DELETE of all":        {http.MethodDelete, chainPath, "", 405, "only GET and POST"},
		"DELETE of all UEFI":   {http.MethodDelete, uefi, "", 405, "only GET and POST"},
		"too deep":             {http.MethodGet, chainPath + "/1/x", "", 404, "not_found"},
		"too deep UEFI":        {http.MethodGet, uefi + "/1/x", "", 404, "not_found"},
		"by name":              {http.MethodGet, chainPath + "/a", "", 404, `url \"a\" does not exist`},
	} {
		t.Run(name, func(t *testing.T) {
			status, got := ask(t, srv, tt.method, tt.path, tt.body)
			require.Equal(t, tt.status, status, got)
			require.Contains(t, got, tt.want)
		})
	}
}

// TestDeletingASetRevokesItsURLs also checks that those of another set stay.
func TestDeletingASetRevokesItsURLs(t *testing.T) {
	a, srv := start(t, someBases(t))
	for _, n := range []string{"1", "2"} {
		status, _ := ask(t, srv, http.MethodPost, setsPath, `{"name":"rack`+n+`"}`)
		require.Equal(t, 201, status)
		status, _ = ask(t, srv, http.MethodPost, setsPath+"/"+n+"/uefi_http_boot_urls", `{"name":"dc"}`)
		require.Equal(t, 201, status)
	}
	status, _ := ask(t, srv, http.MethodDelete, setsPath+"/1", "")
	require.Equal(t, 200, status)
	require.Empty(t, a.Links.OfSet(1))
	require.Len(t, a.Links.OfSet(2), 1)
}

// TestT13_ExplainSaysWhatTheListenerWould of a URL whose set has ended, and of
// one that is asked over the other protocol.
func TestT13_ExplainSaysWhatTheListenerWould(t *testing.T) {
	a, srv := start(t, someBases(t))
	end := time.Now().Add(4 * time.Second).UTC().Format(time.RFC3339Nano)
	status, got := ask(t, srv, http.MethodPost, setsPath, `{"name":"rack1","expires_at":"`+end+`"}`)
	require.Equal(t, 201, status, got)
	status, got = ask(t, srv, http.MethodPost, setsPath+"/1/uefi_http_boot_urls", `{"name":"dc1","expires_at":null,"protocols":"https_only"}`)
	require.Equal(t, 201, status, got)
	token := a.Links.Token(a.Links.List(links.UEFI)[0]).Encode()
	explain := func(over string) (e struct{ Code, Reason string }) {
		status, got := ask(t, srv, http.MethodPost, base+"/auth/explain", `{"token":"`+token+`","over":"`+over+`"}`)
		require.Equal(t, 200, status, got)
		require.NoError(t, json.Unmarshal([]byte(got), &e))
		return e
	}
	require.Equal(t, pki.CodeNotAllowed, explain("http").Code)
	require.Eventually(t, func() bool { return explain("https").Code == artifact.CodeExpired }, 20*time.Second, 50*time.Millisecond)
	require.Equal(t, artifact.CodeExpired, explain("").Code)
}

// TestURLsThatEndedAreTold: they are listed among the good ones.
func TestURLsThatEndedAreTold(t *testing.T) {
	a, srv := start(t, someBases(t))
	status, _ := ask(t, srv, http.MethodPost, setsPath, `{"name":"rack1"}`)
	require.Equal(t, 201, status)
	status, _ = ask(t, srv, http.MethodPost, chainPath, `{"name":"metal1","expires_at":"2131-01-31T23:59:59Z"}`)
	require.Equal(t, 201, status)
	a.Now = func() time.Time { return time.Date(2132, 1, 1, 0, 0, 0, 0, time.UTC) }
	_, got := ask(t, srv, http.MethodGet, chainPath+"/1", "")
	require.Contains(t, got, `"name":"metal1","status":"expired"`)
}
