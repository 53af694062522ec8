package main

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestArgumentsAreNamed where one is missing, and commands where one is unknown.
func TestArgumentsAreNamed(t *testing.T) {
	for line, want := range map[string]string{
		"trust show":       "want nestctl trust show NAME; --help has more",
		"trust show a b":   "want nestctl trust show NAME; --help has more",
		"ca drop":          "want nestctl ca drop GENERATION; --help has more",
		"trust delete x":   `"delete" is no command of nestctl trust, which has add, list, remove, show; did you mean remove?`,
		"artifact lst":     "did you mean list?",
		"machine list all": "want nestctl machine list; --help has more",
	} {
		cmd := command()
		cmd.SetArgs(strings.Fields(line))
		cmd.SetOut(io.Discard)
		require.ErrorContains(t, cmd.Execute(), want, line)
	}
}
