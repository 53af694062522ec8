package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// stock is what sets can be made of, as bootd's API shows it.
type stock struct {
	Bases []struct {
		Package  string `json:"package"`
		Version  string `json:"version"`
		License  string `json:"license"`
		Binaries []struct {
			Name string `json:"name"`
		} `json:"binaries"`
	} `json:"bases"`
	Versions []struct {
		Version string   `json:"version"`
		UsedBy  []string `json:"used_by"`
	} `json:"versions"`
}

// bases is the command group for the binaries that sets are made of.
func bases(socket *string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "base", Short: "Stock binaries that artifact sets are made of", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(baseList(socket))
	return cmd
}

func baseList(socket *string) *cobra.Command {
	return listCommand(socket, &cobra.Command{
		Short: "List imported packages and versions of iPXE",
		Long: "List what artifact sets can be made of. bootd imports the packages and folders of artifacts.bases\n" +
			"when it starts and at SIGHUP, and keeps every version until its folder below bases/ in the state\n" +
			"directory is removed.",
	}, "/bases", printStock)
}

func printStock(w io.Writer, s stock) error {
	if len(s.Versions) == 0 {
		if _, err := fmt.Fprintln(w, "There is no iPXE to make sets of: install Debian's package ipxe, or name .deb files in artifacts.bases, then reload bootd."); err != nil {
			return err
		}
	}
	rows := [][]string{{"IPXE", "USED BY"}}
	for _, v := range s.Versions {
		used := strings.Join(v.UsedBy, ", ")
		if used == "" {
			used = "-"
		}
		rows = append(rows, []string{v.Version, used})
	}
	rows = append(rows, []string{"\nPACKAGE", "VERSION", "LICENCE", "FILES"})
	for _, b := range s.Bases {
		var names []string
		for _, x := range b.Binaries {
			names = append(names, x.Name)
		}
		rows = append(rows, []string{b.Package, b.Version, b.License, strings.Join(names, " ")})
	}
	return table(w, rows)
}
