package ipxebuild

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMark(t *testing.T) {
	root, other := digest{0xab, 0xcd, 0xef, 1}, digest{0xab, 0xcd, 0xff, 1}
	for version, want := range map[string]string{
		v2:                "2.0.0,abcdef",
		v1:                "1.21.1+git20250501.dad20602,abcdef",
		"1.21.1+ (g1234)": "1.21.1+ ,abcdef",
		"1.21.1+":         "1,abcde",
		"2.0.0":           "2,abc",
	} {
		code := []byte("before iPXE\x00\x00" + version + "\x00after")
		require.NoError(t, mark(code, root))
		require.Equal(t, "before iPXE\x00\x00"+want+"\x00after", string(code))
		require.Equal(t, want, markedVersion(version, root))
		left, _, _ := strings.Cut(want, markSign)
		require.Equal(t, left, plainVersion(code))
	}
	require.NotEqual(t, markedVersion(v2, root), markedVersion(v2, other))
	for code, want := range map[string]string{
		"nothing here":                       "where its version is",
		"iPXE\x002.0\x00":                    "no room for a mark",
		"iPXE\x002.0.0\x00iPXE\x002.0.0\x00": "where its version is",
	} {
		require.ErrorContains(t, mark([]byte(code), root), want)
	}
}

// TestScriptKnowsAnyVersion: iPXE that was built from its repository has blanks
// in its version.
func TestScriptKnowsAnyVersion(t *testing.T) {
	for _, version := range []string{v1, v2, "1.21.1+ (g1234)", "2.0.0"} {
		c := newScript()
		c.foreign, c.marked = true, markedVersion(version, digest{1})
		got, err := c.render()
		require.NoError(t, err)
		require.Contains(t, string(got), "\niseq ${version:hexraw} "+hex.EncodeToString([]byte(c.marked))+" && goto pause ||\n")
	}
}
