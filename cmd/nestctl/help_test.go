package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestHelpGolden keeps what every command says of itself, so that a change of
// it is seen, and looks for lines that a terminal would break.
func TestHelpGolden(t *testing.T) {
	t.Setenv("NESTBOOT_SOCKET", "")
	var b strings.Builder
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Name() == "help" || cmd.Name() == "completion" {
			return
		}
		cmd.InitDefaultHelpFlag()
		_, _ = fmt.Fprintf(&b, "===== %s\n%s\n%s", cmd.CommandPath(), cmd.Short, cmd.Long)
		_, _ = fmt.Fprintf(&b, "\n%s\n", cmd.UsageString())
		require.NotEmpty(t, cmd.Short, cmd.CommandPath())
		for line := range strings.SplitSeq(cmd.Long, "\n") {
			require.LessOrEqual(t, len([]rune(line)), 108, "%s: %s", cmd.CommandPath(), line)
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(command())
	const path = "testdata/help.golden"
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}
