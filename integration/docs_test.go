package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDependenciesAreExplained keeps docs/dependencies.md and go.mod together.
func TestDependenciesAreExplained(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	require.NoError(t, err)
	doc, err := os.ReadFile("../docs/dependencies.md")
	require.NoError(t, err)
	direct := regexp.MustCompile(`(?m)^\t(\S+) v\S+$`).FindAllSubmatch(mod, -1)
	require.NotEmpty(t, direct)
	for _, m := range direct {
		name := string(m[1])
		if strings.HasPrefix(name, "go.etcd.io/etcd/") {
			name = "go.etcd.io/etcd/"
		}
		require.Contains(t, string(doc), "| "+name, "docs/dependencies.md does not say what it is for")
	}
	for _, m := range regexp.MustCompile(`(?m)^\| ([a-z][a-z.]+/[^ {]+)`).FindAllSubmatch(doc, -1) {
		require.Contains(t, string(mod), string(m[1]), "docs/dependencies.md explains what is not there")
	}
}

// TestSecurityRowsNameRealTests keeps docs/security.md true: each test that it
// names exists, and each test with a row in its name is in that row.
func TestSecurityRowsNameRealTests(t *testing.T) {
	doc, err := os.ReadFile("../docs/security.md")
	require.NoError(t, err)
	exist := testNames(t)
	for _, m := range regexp.MustCompile(`\b((?:Test|Fuzz)[A-Za-z0-9]+(?:_[A-Za-z0-9]+)*)(_\*)?`).FindAllStringSubmatch(string(doc), -1) {
		found := false
		for name := range exist {
			found = found || name == m[1] || m[2] != "" && strings.HasPrefix(name, m[1]+"_")
		}
		require.True(t, found, "docs/security.md names %s, which does not exist", m[0])
	}
	row := regexp.MustCompile(`^(?:Test|Fuzz)T0?(\d+)_`)
	for name := range exist {
		m := row.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		line := regexp.MustCompile(`(?m)^\| T` + m[1] + ` \|.*$`).FindString(string(doc))
		require.NotEmpty(t, line, "%s belongs to a row that docs/security.md lacks", name)
		prefix := regexp.MustCompile(`_.*`).ReplaceAllString(name, "_")
		require.Contains(t, line, prefix, "row T%s does not name %s", m[1], name)
	}
}

// testNames are the names of all tests and fuzz targets.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	files, err := filepath.Glob("../*/*_test.go")
	require.NoError(t, err)
	deeper, err := filepath.Glob("../*/*/*_test.go")
	require.NoError(t, err)
	for _, file := range append(files, deeper...) {
		src, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(src, -1) {
			names[string(m[1])] = true
		}
	}
	return names
}
