package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// explainArgs has a command and those below it say what they want where cobra
// only counts arguments.
func explainArgs(cmd *cobra.Command) {
	for _, below := range cmd.Commands() {
		explainArgs(below)
	}
	check := cmd.Args
	if check == nil {
		return
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		switch {
		case err == nil:
			return nil
		case !cmd.HasSubCommands():
			return fmt.Errorf("want %s; --help has more", strings.TrimSuffix(cmd.UseLine(), " [flags]"))
		}
		cmd.SuggestionsMinimumDistance = 2
		var names []string
		for _, below := range cmd.Commands() {
			names = append(names, below.Name())
		}
		text := fmt.Sprintf("%q is no command of %s, which has %s", args[0], cmd.CommandPath(), strings.Join(names, ", "))
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			text += "; did you mean " + near[0] + "?"
		}
		return fmt.Errorf("%s", text)
	}
}
