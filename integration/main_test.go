package integration

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/rig"
)

// errLab is why there is no lab; nil inside one.
var errLab error

// TestMain moves the tests into the lab's namespaces, unless they are short.
func TestMain(m *testing.M) {
	flag.Parse()
	if !testing.Short() {
		errLab = lab.Enter()
	}
	os.Exit(m.Run())
}

// newRig builds the programs and starts a rig in a folder that stays for
// whoever has to find out why a test failed.
func newRig(t *testing.T, foreign string) *rig.Rig {
	t.Helper()
	if testing.Short() {
		t.Skip("boots virtual machines")
	}
	if errLab != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(errLab)
		}
		t.Skip(errLab)
	}
	dir, err := filepath.Abs(filepath.Join("..", ".run", "e2e", t.Name()))
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.MkdirAll(dir, 0o700))
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../cmd/...")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	r, err := rig.New(t.Context(), rig.Options{
		Dir: dir, Bootd: filepath.Join(bin, "bootd"), Nestctl: filepath.Join(bin, "nestctl"), Foreign: foreign, Capture: true,
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, r.Close())
		if t.Failed() {
			t.Logf("serial logs, server logs and packets are in %s", dir)
		}
	})
	return r
}

// twice runs a boot again when it failed once: about one kernel in twenty
// oopses early where QEMU emulates the processor.
func twice(t *testing.T, m lab.Machine, boot func(ctx context.Context, m lab.Machine) error) {
	t.Helper()
	err := boot(t.Context(), m)
	if err == nil {
		return
	}
	t.Logf("first try of %s failed, trying once more: %v", m.Name, err)
	m.Name += "-again"
	if again := boot(t.Context(), m); again != nil {
		t.Fatalf("second try of %s failed too: %v", m.Name, again)
	}
}

func uuidOf(n int) string { return fmt.Sprintf("4c4c4544-0042-3510-8052-%012d", n) }
