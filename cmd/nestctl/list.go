package main

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

// listCommand completes a command that shows what bootd answers at a path, as
// --output says; show prints the table.
func listCommand[A any](socket *string, cmd *cobra.Command, path string, show func(io.Writer, A) error) *cobra.Command {
	output := outputFlag(cmd)
	cmd.Use, cmd.Args = "list", cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		return tell(cmd.Context(), c, cmd.OutOrStdout(), output, http.MethodGet, path, nil, show)
	}
	return cmd
}
