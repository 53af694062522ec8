package single

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRebuild compiles our programs again and compares them with what is
// committed. Only GCC 12.2.0 of Debian 12 makes the same bytes; where it is
// missing or another one, the test is skipped, and fails where CI=true.
func TestRebuild(t *testing.T) {
	// Reading them tells Go's test cache what the result depends on.
	for _, source := range []string{"build.sh", "flat.ld", "nbp.s", "stub.c"} {
		_, err := os.ReadFile(filepath.Join("stub", source))
		require.NoError(t, err)
	}
	dir := t.TempDir()
	out, err := exec.Command("stub/build.sh", dir).CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 3 {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s", out)
		}
		t.Skipf("%s", out)
	}
	require.NoError(t, err, "%s", out)
	built, err := filepath.Glob(filepath.Join(dir, "*.bin"))
	require.NoError(t, err)
	require.Len(t, built, 3)
	for _, path := range built {
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		want, err := os.ReadFile(filepath.Join("stub", filepath.Base(path)))
		require.NoError(t, err)
		require.Equal(t, want, got, "%s is not what its source compiles to: run make generate", filepath.Base(path))
	}
}
