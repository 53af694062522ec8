package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/images/depot"
	"github.com/nestboot/nestboot/images/pull"
	"github.com/nestboot/nestboot/images/release"
	"github.com/nestboot/nestboot/images/signature"
)

// startImages is an API with a depot alone; Pull is what a test says.
func startImages(t *testing.T) (*API, *httptest.Server) {
	t.Helper()
	a := &API{Org: org, Log: slog.New(slog.DiscardHandler), Now: time.Now, Version: "v1"}
	var err error
	a.Images, err = depot.Open(depot.Config{
		Dir: filepath.Join(t.TempDir(), "images"), Log: a.Log, Now: time.Now, InUse: func() []string { return []string{"lab:mine:1:x86_64"} },
	})
	require.NoError(t, err)
	require.NoError(t, a.Images.Prepare())
	a.Pull = func(ctx context.Context, r pull.Request, tell func(pull.Progress)) (depot.Manifest, error) {
		switch r.Ref {
		case "refused":
			return depot.Manifest{}, &signature.Refusal{Code: signature.CodeWrongKey, Reason: "signed by somebody"}
		case "invalid":
			return depot.Manifest{}, &pull.Invalid{Reason: "no such thing"}
		case "network":
			return depot.Manifest{}, errors.New("no route")
		}
		ref, err := release.ParseRef(r.Ref, r.Arch)
		require.NoError(t, err)
		part := a.Images.Partial(ref, "k")
		require.NoError(t, os.WriteFile(part, []byte("x"), 0o600))
		f := depot.File{Name: "k", Size: 1, SHA256: "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}
		m := depot.Manifest{
			Format: 1, Ref: ref, Kernel: f, Initrds: []depot.File{}, Args: []string{}, Order: "debian", Source: "test",
			Pulled: time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC), Proof: depot.Proof{Kind: release.None},
		}
		for done := range int64(1000) {
			tell(pull.Progress{Step: "file", File: "k", Done: done, Total: 1000})
		}
		return m, a.Images.Publish(ctx, m, map[string]string{f.SHA256: part}, r.Force)
	}
	srv := httptest.NewServer(a)
	t.Cleanup(srv.Close)
	return a, srv
}

func TestImages(t *testing.T) {
	_, srv := startImages(t)
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/images", "", 200, `{"images":[]}`},
		{"POST", "/images", `{"release":"lab:mine:1"}`, 200, `"id":"lab:mine:1:x86_64"`},
		{"POST", "/images", `{"release":"lab:mine:0"}`, 422, `"code":"downgrade"`},
		{"POST", "/images", `{"release":"lab:mine:2","force":true}`, 200, `"in_use":false`},
		{"POST", "/images", `{"release":"refused"}`, 422, `"code":"wrong-key"`},
		{"POST", "/images", `{"release":"invalid"}`, 422, `"code":"invalid_value"`},
		{"POST", "/images", `{"release":"network"}`, 502, `"error":"no route"`},
		{"POST", "/images", `{"from_where":"x"}`, 422, `is not a field`},
		{"POST", "/images", `[]`, 400, `bad_json`},
		{"PUT", "/images", ``, 405, `GET and POST`},
		{"GET", "/images/lab:mine:1:x86_64", "", 200, `"in_use":true`},
		{"GET", "/images/lab:mine:9:x86_64", "", 404, `nestctl image pull`},
		{"GET", "/images/..", "", 404, `not_found`},
		{"POST", "/images/lab:mine:1:x86_64/verify", "", 200, `"damaged":[]`},
		{"GET", "/images/lab:mine:1:x86_64/verify", "", 405, `POST`},
		{"DELETE", "/images/lab:mine:1:x86_64", "", 409, `"code":"in_use"`},
		{"POST", "/images/collect", `{"keep":0,"dry_run":true}`, 200, `"releases":["lab:mine:2:x86_64"]`},
		{"POST", "/images/collect", `{"keep":-1}`, 422, `keep`},
		{"DELETE", "/images/lab:mine:2:x86_64", "", 200, `"id":"lab:mine:2:x86_64"`},
		{"DELETE", "/images/lab:mine:2:x86_64", "", 404, `not_found`},
	} {
		status, body := ask(t, srv, tt.method, base+tt.path, tt.body)
		require.Equal(t, tt.status, status, "%s %s %s: %s", tt.method, tt.path, tt.body, body)
		require.Contains(t, body, tt.want, "%s %s %s", tt.method, tt.path, tt.body)
	}
}

func TestPullTellsItsProgress(t *testing.T) {
	_, srv := startImages(t)
	for ref, want := range map[string]string{
		"lab:mine:1": "event: progress\ndata: {\"step\":\"file\",\"file\":\"k\",\"total\":1000}\n\n",
		"refused":    "event: failed\ndata: {\"status\":422,\"error\":\"signed by somebody\",\"code\":\"wrong-key\"}\n\n",
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+base+"/images", strings.NewReader(`{"release":"`+ref+`"}`))
		require.NoError(t, err)
		req.Header.Set("Accept", "text/event-stream")
		res, err := http.DefaultTransport.RoundTrip(req)
		require.NoError(t, err)
		data, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Contains(t, string(data), want)
		require.Less(t, strings.Count(string(data), "event: progress"), 100, "not every byte")
		if ref != "refused" {
			require.Contains(t, string(data), "event: done\ndata: {\"image\":{\"id\":\"lab:mine:1:x86_64\"")
		}
	}
}
