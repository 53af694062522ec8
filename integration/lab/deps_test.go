package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// deps.sh takes the archive from the machine's own apt configuration, in both of its formats.
func TestDepsFindsMirror(t *testing.T) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		lack(t, err.Error())
	}
	tests := []struct {
		name, file, content, want string
	}{
		{"one line", "sources.list", "# cd\ndeb http://mirror.test/debian bookworm main contrib\n", "http://mirror.test/debian/"},
		{
			"one line with options, security first", "sources.list",
			"deb http://security.test/ bookworm-security main\ndeb [arch=amd64] https://mirror.test/deb/ trixie main\n",
			"https://mirror.test/deb/",
		},
		{
			"deb822", "x.sources",
			"Types: deb deb-src\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\n",
			"http://mirror.test/debian/",
		},
		{
			"deb822, disabled one first", "x.sources",
			"Enabled: no\nTypes: deb\nURIs: http://no.test/\nSuites: bookworm\nComponents: main\n\n" +
				"Types: deb\nURIs: file:/srv/debian\nSuites: trixie\nComponents: main\n",
			"file:/srv/debian/",
		},
		{"only other suites", "sources.list", "deb http://mirror.test/debian bookworm-backports main\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.content), 0o600))
			config := filepath.Join(dir, "apt.conf")
			require.NoError(t, os.WriteFile(config, fmt.Appendf(nil,
				"Dir::Etc::sourcelist %q;\nDir::Etc::sourceparts %q;\n", dir+"/sources.list", dir), 0o600))
			cmd := exec.CommandContext(t.Context(), "../deps.sh", "mirror")
			cmd.Env = append(os.Environ(), "APT_CONFIG="+config, "NESTBOOT_CACHE="+dir+"/cache")
			out, err := cmd.Output()
			require.NoError(t, err)
			require.Equal(t, tt.want, strings.TrimSpace(string(out)))
		})
	}
}
