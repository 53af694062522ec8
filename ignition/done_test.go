package ignition

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// curl runs the unit's ExecStart as systemd would, with the files it names in dir and without waiting for retries.
func curl(t *testing.T, url, dir string, extra ...string) (string, error) {
	_, line, _ := strings.Cut(*doneUnit(url).Contents, "ExecStart=")
	line, _, _ = strings.Cut(line, "\n")
	line = strings.ReplaceAll(line, ourDir, dir)
	require.True(t, strings.HasPrefix(line, "/usr/bin/curl "))
	args := append(strings.Fields(strings.Replace(line, "--retry 5", "--retry 0", 1)), extra...)
	out, err := exec.Command(tool(t, "curl"), args[1:]...).CombinedOutput()
	return string(out), err
}

// server answers 503 on /busy and sends every request it sees.
func server(t *testing.T) (*httptest.Server, <-chan *http.Request) {
	seen := make(chan *http.Request, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/busy" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		seen <- r
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv, seen
}

// install writes the phone-home's files to a directory, as Ignition does.
func install(t *testing.T, v Values) string {
	c, err := v.config()
	require.NoError(t, err)
	dir := t.TempDir()
	for _, path := range []string{rootPath, headerPath} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.Base(path)), []byte(content(c, path)), 0o600))
	}
	return dir
}

func TestPhoneHome(t *testing.T) {
	srv, seen := server(t)
	v := values(t)
	v.RootPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	dir := install(t, v)

	out, err := curl(t, srv.URL+"/ipxe/done", dir)
	require.NoError(t, err, out)
	got := <-seen
	require.Equal(t, "POST /ipxe/done", got.Method+" "+got.URL.Path)
	require.Equal(t, []string{"Bearer " + v.Done.Token}, got.Header.Values("Authorization"))

	out, err = curl(t, srv.URL+"/busy", dir)
	<-seen
	require.Error(t, err, "a refusal must fail the unit, so that systemd tries again")
	require.Contains(t, out, "503")
	require.NotContains(t, out, v.Done.Token)
}

// With --cacert alone curl also trusts the image's own directory of authorities.
func TestPhoneHomeTrustsOurRootOnly(t *testing.T) {
	srv, seen := server(t)
	dir := install(t, values(t))
	out, err := curl(t, srv.URL, dir, "--verbose")
	require.Error(t, err)
	require.Contains(t, out, "SSL certificate problem")
	require.Contains(t, out, "CApath: "+dir)
	require.Empty(t, seen)
}

func TestT20_TokenStandsInItsFileOnly(t *testing.T) {
	v := values(t)
	raw, err := compile(t, "worker-1.0.0.bu").Render(v)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(raw), v.Done.Token))
	for _, f := range parse(t, raw).Storage.Files {
		if strings.Contains(*f.Contents.Source, v.Done.Token) {
			require.Equal(t, headerPath, f.Path)
			require.Equal(t, 0o600, *f.Mode)
		}
	}
}

func TestUnitPassesSystemd(t *testing.T) {
	analyze := tool(t, "systemd-analyze")
	verify := func(text string) (string, error) {
		file := filepath.Join(t.TempDir(), unitName)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput()
		return string(out), err
	}
	unit := *doneUnit("https://[fd00:77::1]:8443/ipxe/done").Contents
	out, err := verify(unit)
	require.NoError(t, err)
	require.NotContains(t, out, unitName)
	out, _ = verify(strings.Replace(unit, "RestartSec", "RestartSecs", 1))
	require.Contains(t, out, "RestartSecs")
}
