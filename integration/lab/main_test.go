package lab

import (
	"fmt"
	"os"
	"testing"
)

// TestMain runs all tests inside the lab's namespaces where the machine allows it. Where it does not, the tests that
// need them are skipped on a laptop and fail in CI, by needNamespaces.
func TestMain(m *testing.M) {
	if err := Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	beHelper(os.Getenv("LAB_HELPER"))
	os.Exit(m.Run())
}

func needNamespaces(t *testing.T) {
	t.Helper()
	if os.Getenv(inside) == "" {
		lack(t, "no namespaces here: needs root or user namespaces")
	}
}

func needMaterials(t *testing.T) Materials {
	t.Helper()
	m, err := FindMaterials()
	if err != nil {
		lack(t, err.Error())
	}
	return m
}

func lack(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}
