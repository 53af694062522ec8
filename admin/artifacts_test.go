package admin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/lab"
)

const (
	setsPath  = base + "/ipxe_boot_artifacts"
	machineID = "4c4c4544-0042-3510-8052-b4c04f564433"
)

// steady replaces what differs from run to run.
func steady(s string) string {
	for _, r := range [][2]string{
		{`/(artifacts|chain|uefi)/[A-Za-z0-9_-]{43}`, `/$1/TOKEN`},
		{`"serial":"[0-9a-f]+"`, `"serial":"SERIAL"`},
		{`"(not_after|not_before|created_at|issued_at)":"[^"]+"`, `"$1":"TIME"`},
		{`boot (root|intermediate) [0-9a-f]{8}`, `boot $1 NUMBER`},
		{`"(fingerprint|root)":"[0-9a-f]{64}"`, `"$1":"DIGEST"`},
		{`"pem":"-----BEGIN[^"]+"`, `"pem":"CERTIFICATE"`},
		{`/[0-9a-f]{8}\.ipxe`, `/SCRIPT.ipxe`},
		{`"(package|file)":"/[^"]+"`, `"$1":"PATH"`},
		{`filled /\S+`, `filled PATH`},
	} {
		s = regexp.MustCompile(r[0]).ReplaceAllString(s, r[1])
	}
	var b bytes.Buffer
	if json.Indent(&b, []byte(s), "", "  ") == nil { // ask has looked at it
		return b.String()
	}
	return s
}

// TestArtifactsGolden goes through the life of a set as a client of the
// reference API does, with nothing but the fields that it knows.
func TestArtifactsGolden(t *testing.T) {
	a, srv := start(t, lab.Need(t).IPXEDir())
	_, empty := ask(t, srv, http.MethodGet, setsPath)
	require.JSONEq(t, `{"ipxe_boot_artifacts":[]}`, empty)
	for _, step := range []struct {
		name, method, path, body string
		status                   int
	}{
		{"artifact-created", http.MethodPost, setsPath, `{"name":"rack1","expires_at":"2031-01-31T23:59:59Z"}`, 201},
		{"artifact-operation", http.MethodGet, base + "/operations/1", "", 200},
		{"artifact", http.MethodGet, setsPath + "/1", "", 200},
		{"artifact-keyless", http.MethodPost, setsPath + "/", `{"name":"trust","expires_at":null,"keyless":true,"archs":["arm64"],"exposure":[]}`, 201},
		{"artifact-exposed", http.MethodPut, setsPath + "/1", `{"name":"rack1","expires_at":"2031-01-31T23:59:59Z","exposure":["tftp","http"]}`, 200},
		{"artifact-taken", http.MethodPost, setsPath, `{"name":"rack1","expires_at":null}`, 422},
		{"artifact-wrong", http.MethodPost, setsPath, `{"name":"Rack 1","expires_at":"tomorrow","key_type":"p256","vlan":7,"options":{"vlan":"x"},"archs":"arm64"}`, 422},
		{"artifact-changed", http.MethodPut, setsPath + "/1", `{"name":"rack9","expires_at":null,"machines":["` + machineID + `"],"archs":null,"exposure":[]}`, 422},
		{"artifact-deleted", http.MethodDelete, setsPath + "/1", "", 200},
		{"artifact-deleted-operation", http.MethodGet, base + "/operations/2", "", 200},
		{"artifact-gone", http.MethodGet, setsPath + "/1", "", 404},
		{"artifacts", http.MethodGet, setsPath, "", 200},
		{"bases", http.MethodGet, base + "/bases", "", 200},
	} {
		status, got := ask(t, srv, step.method, step.path, step.body)
		require.Equal(t, step.status, status, "%s: %s", step.name, got)
		golden(t, step.name, steady(got))
	}
	require.Len(t, a.Artifacts.List(), 1)
}

func TestArtifactRequestsThatAreRefused(t *testing.T) {
	_, srv := start(t, someBases(t))
	status, _ := ask(t, srv, http.MethodPost, setsPath, `{"name":"rack1"}`)
	require.Equal(t, 201, status)
	many := `{"name":"a","machines":["` + strings.Repeat(machineID+`","`, 8000) + machineID + `"]}`
	for name, tt := range map[string]struct {
		method, path, body string
		status             int
		want               string
	}{
		"no body":              {http.MethodPost, setsPath, "", 400, `"code":"bad_json"`},
		"not an object":        {http.MethodPost, setsPath, `[]`, 400, `"code":"bad_json"`},
		"null":                 {http.MethodPost, setsPath, `null`, 400, `"code":"bad_json"`},
		"two objects":          {http.MethodPost, setsPath, `{"name":"a"}{}`, 400, `"code":"bad_json"`},
		"too long":             {http.MethodPost, setsPath, many, 413, `"code":"body_too_large"`},
		"unknown field":        {http.MethodPost, setsPath, `{"name":"a","nme":1}`, 422, `"error_details":{"nme":["is not a field"]}`},
		"unknown inner field":  {http.MethodPost, setsPath, `{"name":"a","options":{"vlna":1}}`, 422, `"options.vlna":["is not a field"]`},
		"wrong inner type":     {http.MethodPost, setsPath, `{"name":"a","options":{"vlan":"x"}}`, 422, `"options.vlan":["a string is not what is wanted here"]`},
		"wrong address":        {http.MethodPost, setsPath, `{"name":"a","options":{"static":{"address":"x"}}}`, 422, `"error_details":{"options":["`},
		"unknown exposure":     {http.MethodPut, setsPath + "/1", `{"exposure":["ftp"]}`, 422, `"exposure":["\"ftp\" is none of https, http, tftp"]`},
		"name cannot change":   {http.MethodPut, setsPath + "/1", `{"name":"b"}`, 422, `"code":"value_cannot_change"`},
		"end cannot be added":  {http.MethodPut, setsPath + "/1", `{"expires_at":"2031-01-31T23:59:59Z"}`, 422, `"expires_at":["cannot be changed`},
		"options cannot":       {http.MethodPut, setsPath + "/1", `{"options":{"vlan":7}}`, 422, `"options":["cannot be changed`},
		"other case in PUT":    {http.MethodPut, setsPath + "/1", `{"Machines":["4c4c4544-0042-3510-8052-000000000001"]}`, 422, `"Machines":["is not a field"]`},
		"unknown field in PUT": {http.MethodPut, setsPath + "/1", `{"x":1}`, 422, `"x":["is not a field"]`},
		"PUT of none":          {http.MethodPut, setsPath + "/9", `{"exposure":[]}`, 404, `artifact set \"9\" does not exist`},
		"by name":              {http.MethodGet, setsPath + "/rack1", "", 404, "not_found"},
		"DELETE of none":       {http.MethodDelete, setsPath + "/9", "", 404, "not_found"},
		"DELETE of all":        {http.MethodDelete, setsPath, "", 405, "only GET and POST"},
		"POST to one":          {http.MethodPost, setsPath + "/1", "{}", 405, "only GET, PUT, PATCH and DELETE"},
		"no such file":         {http.MethodGet, setsPath + "/1/files/client.pem", "", 404, "not_found"},
		"file of none":         {http.MethodGet, setsPath + "/9/files/rack1.iso", "", 404, "not_found"},
		"no such part":         {http.MethodGet, setsPath + "/1/x", "", 404, "not_found"},
		"no such operation":    {http.MethodGet, base + "/operations/3", "", 404, "not_found"},
		"not deleted yet":      {http.MethodGet, base + "/operations/2", "", 404, "not_found"},
		"operation 0":          {http.MethodGet, base + "/operations/0", "", 404, "not_found"},
		"operation -1":         {http.MethodGet, base + "/operations/-1", "", 404, "not_found"},
		"largest operation":    {http.MethodGet, base + "/operations/9223372036854775807", "", 404, "not_found"},
		"too large operation":  {http.MethodGet, base + "/operations/9223372036854775808", "", 404, "not_found"},
		"wrong type in PUT":    {http.MethodPut, setsPath + "/1", `{"archs":"arm64"}`, 422, `"archs":["a string is not what is wanted here"]`},
		"PATCH of another":     {http.MethodPatch, setsPath + "/1", `{"exposure":[]}`, 422, `"exposure":["is not a field"]`},
		"PATCH with unknown":   {http.MethodPatch, setsPath + "/1", `{"serve":["ftp"]}`, 422, `"exposure":["\"ftp\" is none of https, http, tftp"]`},
		"PATCH of none":        {http.MethodPatch, setsPath + "/9", `{"serve":["tftp"]}`, 404, "not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			status, got := ask(t, srv, tt.method, tt.path, tt.body)
			require.Equal(t, tt.status, status, got)
			require.Contains(t, got, tt.want)
		})
	}
	status, got := ask(t, srv, http.MethodPut, setsPath+"/1", `{"name":"rack1","expires_at":null,"machines":null}`)
	require.Equal(t, 200, status, got)
	require.Contains(t, got, `"exposure":["https"]`, "what is left out stays")
}

// TestWhatWasReadMayBePut has a client send the whole object back, as those of
// the reference API do, with another exposure.
func TestWhatWasReadMayBePut(t *testing.T) {
	_, srv := start(t, someBases(t))
	status, _ := ask(t, srv, http.MethodPost, setsPath, `{"name":"rack1"}`)
	require.Equal(t, 201, status)
	_, got := ask(t, srv, http.MethodGet, setsPath+"/1")
	var read struct {
		Set map[string]any `json:"ipxe_boot_artifact"`
	}
	require.NoError(t, json.Unmarshal([]byte(got), &read))
	read.Set["status_reason"] = "it was there a moment ago"
	read.Set["exposure"] = []string{"tftp"}
	body, err := json.Marshal(read.Set)
	require.NoError(t, err)
	status, got = ask(t, srv, http.MethodPut, setsPath+"/1", string(body))
	require.Equal(t, 200, status, got)
	require.Contains(t, got, `"exposure":["tftp"]`)
	require.Contains(t, got, `"id":1,"status":"ready"`, "what only we change stays")
}

// TestNobodyUndoesWhatAnotherWithdraws changes a set from several sides at
// once, each with a protocol of its own.
func TestNobodyUndoesWhatAnotherWithdraws(t *testing.T) {
	a, srv := start(t, someBases(t))
	status, _ := ask(t, srv, http.MethodPost, setsPath, `{"name":"rack1","exposure":["tftp"]}`)
	require.Equal(t, 201, status)
	for range 20 {
		var g sync.WaitGroup
		for _, body := range []string{`{"withdraw":["tftp"]}`, `{"serve":["http"]}`, `{"serve":["https"]}`} {
			g.Go(func() {
				req := httptest.NewRequestWithContext(t.Context(), http.MethodPatch, setsPath+"/1", strings.NewReader(body))
				a.ServeHTTP(httptest.NewRecorder(), req)
			})
		}
		g.Wait()
		status, got := ask(t, srv, http.MethodPatch, setsPath+"/1", `{}`)
		require.Equal(t, 200, status)
		require.Contains(t, got, `"exposure":["https","http"]`)
		_, _ = ask(t, srv, http.MethodPut, setsPath+"/1", `{"exposure":["tftp"]}`)
	}
}

// TestOperationsOfSetsThatAreGone has a set deleted. One that could not be made
// looks the same: its number is taken.
func TestOperationsOfSetsThatAreGone(t *testing.T) {
	_, srv := start(t, someBases(t))
	status, _ := ask(t, srv, http.MethodPost, setsPath, `{"name":"rack1"}`)
	require.Equal(t, 201, status)
	for path, want := range map[string]int{"1": 200, "2": 404} {
		status, _ = ask(t, srv, http.MethodGet, base+"/operations/"+path, "")
		require.Equal(t, want, status, path)
	}
	status, _ = ask(t, srv, http.MethodDelete, setsPath+"/1", "")
	require.Equal(t, 200, status)
	for path, want := range map[string]int{"1": 404, "2": 200} {
		status, _ = ask(t, srv, http.MethodGet, base+"/operations/"+path, "")
		require.Equal(t, want, status, path)
	}
}

func TestInputComesBackAsItWas(t *testing.T) {
	_, srv := start(t, someBases(t))
	const in = `{"name":"visit","expires_at":"2031-01-31T23:59:59Z","archs":["x86_64"],"machines":["` + machineID + `"],"exposure":["tftp","https"],
		"options":{"static":{"address":"192.0.2.7/24","gateway":"192.0.2.1","dns":"192.0.2.2"},"local_after":3}}`
	status, got := ask(t, srv, http.MethodPost, setsPath, in)
	require.Equal(t, 201, status, got)
	var out struct {
		Set map[string]any `json:"ipxe_boot_artifact"`
	}
	require.NoError(t, json.Unmarshal([]byte(got), &out))
	var want map[string]any
	require.NoError(t, json.Unmarshal([]byte(in), &want))
	for field, value := range want {
		require.Equal(t, value, out.Set[field], field)
	}
	status, got = ask(t, srv, http.MethodPut, setsPath+"/1", in)
	require.Equal(t, 200, status, got)
}

func TestArtifactFiles(t *testing.T) {
	a, srv := start(t, someBases(t))
	status, _ := ask(t, srv, http.MethodPost, setsPath, `{"name":"rack1","exposure":[]}`)
	require.Equal(t, 201, status)
	a.Artifacts.Used("rack1", machineID, 1, time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC))
	_, got := ask(t, srv, http.MethodGet, setsPath+"/1")
	require.Contains(t, got, `"last_used":"2026-11-21T03:00:00Z","used_by":[{"machine":"`+machineID+`","at":"2026-11-21T03:00:00Z","generation":1}]`)
	require.Contains(t, got, `"download_url_efi_amd64":null`, "nothing leaves over HTTPS")
	for _, name := range []string{"rack1.efi", "rack1/manifest.json"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+setsPath+"/1/files/"+name, http.NoBody)
		require.NoError(t, err)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		data, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		sum := sha256.Sum256(data)
		require.Equal(t, `"`+hex.EncodeToString(sum[:])+`"`, res.Header.Get("ETag"), "the local administrator may have it")
	}
}
