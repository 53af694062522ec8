package lab

import (
	"os"
	"testing"
)

// Need returns the materials to a test that can't do without: where they are missing the test is skipped, and fails
// where CI=true.
func Need(t testing.TB) Materials {
	t.Helper()
	m, err := FindMaterials()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	return m
}
