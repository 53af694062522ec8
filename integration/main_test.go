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

// newRig builds the programs and starts a rig with the rest of o as given, in a
// folder that stays for whoever has to find out why a test failed.
func newRig(t *testing.T, o rig.Options) *rig.Rig {
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
	bin := programs(t)
	o.Dir, o.Bootd, o.Nestctl, o.Capture = dir, filepath.Join(bin, "bootd"), filepath.Join(bin, "nestctl"), true
	r, err := rig.New(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, r.Close())
		if t.Failed() {
			t.Logf("serial logs, server logs and packets are in %s", dir)
			return
		}
		captures, err := filepath.Glob(filepath.Join(dir, "*.pcap"))
		require.NoError(t, err)
		for _, capture := range captures { // each as large as all that its machine was sent
			require.NoError(t, os.Remove(capture))
		}
	})
	return r
}

// programs builds bootd and nestctl and returns their folder.
func programs(t *testing.T) string {
	t.Helper()
	bin, err := filepath.Abs("../.run/bin") // what is there is linked again only when something has changed
	require.NoError(t, err)
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin+"/", "../cmd/...")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return bin
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
