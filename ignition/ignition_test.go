package ignition

import (
	"encoding/json"
	"flag"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v3_4 "github.com/coreos/ignition/v2/config/v3_4"
	"github.com/coreos/ignition/v2/config/v3_4/types"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// values are good ones; tests bend a copy.
func values(t testing.TB) Values {
	return Values{
		Hostname: "node-1.rack1.example.com",
		Done:     Done{URL: "https://boot.example.com/ipxe/done", Token: "dG9rZW4tb25seS1mb3ItdGhpcy10ZXN0"},
		RootPEM:  read(t, "root.pem"),
	}
}

func read(t testing.TB, name string) []byte {
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return raw
}

func compile(t testing.TB, name string) Base {
	base, err := Compile(read(t, name))
	require.NoError(t, err)
	return base
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(filepath.Join("testdata", name), got, 0o644))
	}
	require.Equal(t, string(read(t, name)), string(got))
}

func TestRender(t *testing.T) {
	for _, tt := range []struct{ butane, hostname, golden, spec string }{
		{"empty-1.0.0.bu", "node-1.rack1.example.com", "empty-1.0.0.golden.json", "3.3.0"},
		{"worker-1.0.0.bu", "node-1.rack1.example.com", "worker-1.0.0.golden.json", "3.3.0"},
		{"worker-1.1.0.bu", "node-1.rack1.example.com", "worker-1.1.0.golden.json", "3.4.0"},
		{"worker-1.1.0.bu", "", "worker-1.1.0-unnamed.golden.json", "3.4.0"},
	} {
		t.Run(tt.golden, func(t *testing.T) {
			base, v := compile(t, tt.butane), values(t)
			v.Hostname = tt.hostname
			raw, err := base.Render(v)
			require.NoError(t, err)
			golden(t, tt.golden, raw)
			require.Equal(t, tt.spec, base.Spec())
			if tt.spec == spec33 {
				require.Empty(t, debianValidate(t, raw))
			}
		})
	}
}

// debianValidate runs ignition-validate of Debian's Ignition 2.14 and returns what it has to say.
func debianValidate(t *testing.T, raw []byte) string {
	file := filepath.Join(t.TempDir(), "config.ign")
	require.NoError(t, os.WriteFile(file, raw, 0o600))
	out, err := exec.Command(tool(t, "ignition-validate"), file).CombinedOutput()
	if err != nil && len(out) == 0 {
		return err.Error()
	}
	return string(out)
}

// tool finds a program on the PATH or else among the lab's materials, whose libraries may not suit this system.
func tool(t *testing.T, name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	cache := os.Getenv("NESTBOOT_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		require.NoError(t, err)
		cache = filepath.Join(user, "nestboot")
	}
	for _, bin := range []string{"usr/bin", "bin"} {
		found, err := filepath.Glob(filepath.Join(cache, "materials", "*", bin, name))
		require.NoError(t, err)
		if len(found) > 0 {
			return found[0]
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing: run make deps", name)
	}
	t.Skipf("%s is missing: run make deps", name)
	return ""
}

func TestDebianValidateRefuses(t *testing.T) {
	require.Contains(t, debianValidate(t, []byte(`{"ignition": {"version": "3.3.0"}, "storage": {"files": [{"path": "x"}]}}`)), "path not absolute")
}

func TestZeroBaseIsRefused(t *testing.T) {
	_, err := Base{}.Render(values(t))
	require.EqualError(t, err, "render ignition config: the base was not made by Compile")
}

// One base serves a whole rack at once; none of its machines may see another's name.
func TestRenderLeavesTheBaseAlone(t *testing.T) {
	base := compile(t, "worker-1.0.0.bu")
	before, err := json.Marshal(base.config)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for _, name := range strings.Fields("a b c d e f g h") {
		wg.Go(func() {
			v := values(t)
			v.Hostname = name
			raw, err := base.Render(v)
			if err != nil || content(parse(t, raw), hostnamePath) != name+"\n" {
				t.Errorf("hostname %s: %v\n%s", name, err, raw)
			}
		})
	}
	wg.Wait()
	after, err := json.Marshal(base.config)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))
}

func parse(t require.TestingT, raw []byte) types.Config {
	c, rep, err := v3_4.ParseCompatibleVersion(raw)
	require.NoError(t, err)
	require.Empty(t, rep.Entries)
	return c
}

// content is what the only file at path will hold; empty if there is none or more than one.
func content(c types.Config, path string) string {
	var found []string
	for _, f := range c.Storage.Files {
		if f.Path == path {
			text, _ := url.PathUnescape(strings.TrimPrefix(*f.Contents.Source, "data:,"))
			found = append(found, text)
		}
	}
	if len(found) != 1 {
		return ""
	}
	return found[0]
}

// Whatever the values are, they come out as they went in and add nothing, or they are refused.
func TestT17_ValuesAddNothingToTheConfig(t *testing.T) {
	base, plain := compile(t, "worker-1.0.0.bu"), values(t)
	raw, err := base.Render(plain)
	require.NoError(t, err)
	want := parse(t, raw)
	rapid.Check(t, func(t *rapid.T) {
		v := plain
		hostile := func(good string) *rapid.Generator[string] {
			g := rapid.StringMatching(good)
			return rapid.OneOf(g, g, g, rapid.String(), rapid.StringMatching(good+"[\"\\\\{}%$ \n\r\x00-]{1,3}"+good))
		}
		v.Hostname = hostile(`[a-z]([a-z0-9-]{0,9}[a-z0-9])?(\.[a-z0-9]{1,9})?`).Draw(t, "hostname")
		v.Done.URL = "https://" + hostile(`[a-z0-9.]{1,20}(:8443)?(/[a-z0-9._~-]{0,9}){0,3}`).Draw(t, "url")
		v.Done.Token = hostile(`[A-Za-z0-9._~+/-]{1,43}=?`).Draw(t, "token")
		raw, err := base.Render(v)
		if err != nil {
			require.Empty(t, raw)
			return
		}
		got := parse(t, raw)
		if v.Hostname != "" {
			require.Equal(t, v.Hostname+"\n", content(got, hostnamePath))
		}
		require.Equal(t, "Authorization: Bearer "+v.Done.Token+"\n", content(got, headerPath))
		unit := got.Systemd.Units[len(got.Systemd.Units)-1]
		require.Equal(t, unitName, unit.Name)
		require.Contains(t, *unit.Contents, " --request POST "+v.Done.URL+"\nExecStartPost=")
		require.Equal(t, strings.Count(unitText, "\n"), strings.Count(*unit.Contents, "\n"))
		require.Len(t, got.Systemd.Units, len(want.Systemd.Units))
		require.Len(t, got.Storage.Files, len(want.Storage.Files))
	})
}
