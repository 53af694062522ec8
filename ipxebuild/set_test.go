package ipxebuild

import (
	"crypto/sha256"
	"debug/pe"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

func config() ScriptConfig {
	return ScriptConfig{Set: "rack1", Base: "https://ipxe.example.com", Cert: []byte{0x30, 0x82, 1}, Key: []byte{0x30, 0x82, 2}}
}

func TestScriptGolden(t *testing.T) {
	got, err := Script(config())
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.WriteFile("testdata/autoexec.ipxe", got, 0o644))
	}
	want, err := os.ReadFile("testdata/autoexec.ipxe")
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

// TestScriptNeverSpins checks that no way back to the question misses a pause.
func TestScriptNeverSpins(t *testing.T) {
	got, err := Script(config())
	require.NoError(t, err)
	slept := false
	back := 0
	for line := range strings.Lines(string(got)) {
		switch {
		case strings.HasPrefix(line, "sleep "):
			slept = true
		case line == "goto retry\n" || line == "goto start\n":
			back++
			require.True(t, slept, "%q without a pause before it", line)
			slept = false
		}
	}
	require.Equal(t, 2, back, "after a failure and after the server's own script")
}

func TestScriptRefusesBases(t *testing.T) {
	for _, base := range []string{"", "http://ipxe.example.com", "https://", "https://h/path", "https://h?q", "https://u@h/", "https://h h", "https://${x}", "https://h\nboot"} {
		c := config()
		c.Base = base
		_, err := Script(c)
		require.Errorf(t, err, "base %q", base)
	}
}

func TestLayout(t *testing.T) {
	root := sha256.Sum256([]byte("root"))
	b, err := ReadBase("snponly.efi", efi(t, pe.IMAGE_FILE_MACHINE_AMD64, stock(t)))
	require.NoError(t, err)
	script, err := Script(config())
	require.NoError(t, err)
	files, err := Layout("rack1", []Base{b}, root, script)
	require.NoError(t, err)
	require.Equal(t, []File{
		{Name: "rack1/snponly.efi", Data: b.Trust(root)},
		{Name: "rack1/autoexec.ipxe", Data: script, HoldsKey: true},
	}, files)
	files, err = Layout("rack1", nil, root, []byte("#!ipxe\n"))
	require.NoError(t, err)
	require.False(t, files[0].HoldsKey, "a script without a key is nobody's secret")
}

func TestCheckSetName(t *testing.T) {
	for name, ok := range map[string]bool{
		"rack1": true, "a": true, "a-b": true, strings.Repeat("a", 32): true,
		"": false, "-a": false, "a-": false, "A": false, "a/b": false, "..": false, "a b": false, strings.Repeat("a", 33): false,
	} {
		require.Equal(t, ok, CheckSetName(name) == nil, "%q", name)
		if !ok {
			_, err := Layout(name, nil, [32]byte{}, nil)
			require.Error(t, err)
		}
	}
}
