package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/lab"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bootd": main})
}

func TestScripts(t *testing.T) {
	ipxe := ipxeDir(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			good := fmt.Sprintf("domain: example.com\nartifacts: {ipxe_dir: %q}\n", ipxe)
			return os.WriteFile(filepath.Join(e.WorkDir, "good.yaml"), []byte(good), 0o600)
		},
	})
}

// ipxeDir is where the stock binaries lie.
func ipxeDir(t *testing.T) string {
	t.Helper()
	m, err := lab.FindMaterials()
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	require.NoError(t, err)
	return filepath.Dir(m.IPXE("snponly.efi"))
}
