package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/nestboot/nestboot/integration/lab"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bootd": main})
}

func TestScripts(t *testing.T) {
	ipxe := lab.Need(t).IPXEDir()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			good := fmt.Sprintf("domain: example.com\nartifacts: {bases: [%q]}\n", ipxe)
			return os.WriteFile(filepath.Join(e.WorkDir, "good.yaml"), []byte(good), 0o600)
		},
	})
}
