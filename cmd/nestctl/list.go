package main

import (
	"io"

	"github.com/spf13/cobra"
)

// listCommand completes a command that shows what bootd answers at a path, as
// the table that show prints or as the JSON that it is.
func listCommand[A any](socket *string, cmd *cobra.Command, path string, show func(io.Writer, A) error) *cobra.Command {
	var output string
	cmd.Use, cmd.Args = "list", cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(output); err != nil {
			return err
		}
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		if output == "json" {
			var answer any
			if err := c.get(cmd.Context(), path, &answer); err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), answer)
		}
		var answer A
		if err := c.get(cmd.Context(), path, &answer); err != nil {
			return err
		}
		return show(cmd.OutOrStdout(), answer)
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}
