package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/inventory"
)

const defaultSocket = "/var/lib/nestboot/admin.sock"

// command is nestctl's command line.
func command() *cobra.Command {
	socket := cmp.Or(os.Getenv("NESTBOOT_SOCKET"), defaultSocket)
	root := &cobra.Command{
		Use:           "nestctl",
		Short:         "Make artifact sets, say who may boot, and look at what bootd knows and does",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&socket, "socket", socket, "bootd's admin `socket`; also NESTBOOT_SOCKET")
	machine := &cobra.Command{
		Use: "machine", Short: "Machines that have been seen", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	machine.AddCommand(machineList(&socket))
	root.AddCommand(artifacts(&socket), bases(&socket), images(&socket), authority(&socket), trust(&socket), urls(&socket), certificates(&socket),
		authentication(&socket), machine, events(&socket), versionCommand())
	explainArgs(root)
	return root
}

func machineList(socket *string) *cobra.Command {
	type answer struct {
		Machines []inventory.Record `json:"machines"`
	}
	return listCommand(socket, &cobra.Command{Short: "List machines"}, "/machines", func(w io.Writer, a answer) error {
		return printMachines(w, a.Machines)
	})
}

func printMachines(w io.Writer, machines []inventory.Record) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, err := fmt.Fprintln(t, "ID\tNAME\tSTATUS\tUUID\tMAC\tADDRESS\tIMAGE\tBY\tLAST SEEN")
	for _, m := range machines {
		if err != nil {
			break
		}
		_, err = fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			m.ID, m.Name, m.Status, m.UUID, m.MAC, m.Addr, cmp.Or(m.Image, "-"), cmp.Or(printable(m.Credential), m.Set, "-"), m.LastSeen.Format(time.RFC3339))
	}
	if err != nil {
		return fmt.Errorf("print machines: %w", err)
	}
	return t.Flush()
}

func events(socket *string) *cobra.Command {
	var bootID string
	var output *format
	var follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened on the way of machines, as a timeline",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := dial(cmd.Context(), *socket)
			if err != nil {
				return err
			}
			show := printer(cmd.OutOrStdout(), output.value == "json", bootID)
			if follow {
				return c.follow(cmd.Context(), 0, show)
			}
			var answer struct {
				Events []boot.Event `json:"events"`
			}
			if err := c.get(cmd.Context(), "/events", &answer); err != nil {
				return err
			}
			for _, e := range answer.Events {
				if err := show(e); err != nil {
					return err
				}
			}
			return nil
		},
	}
	output = outputFlag(cmd, "table", "json") // json: one object per line
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with events as they come")
	cmd.Flags().StringVar(&bootID, "boot", "", "only events of the boot with this `id`")
	return cmd
}

// printer prints events one by one, with a heading before the first.
func printer(w io.Writer, asJSON bool, bootID string) func(boot.Event) error {
	var t boot.Timeline
	heading := true
	return func(e boot.Event) error {
		if bootID != "" && e.Boot != bootID {
			return nil
		}
		if asJSON {
			return json.NewEncoder(w).Encode(e)
		}
		line := fmt.Sprintf("%s  %-16s %s\n", e.Time.Local().Format(time.DateTime), cmp.Or(e.Boot, "-"), t.Line(e))
		if heading {
			line = fmt.Sprintf("%-19s  %-16s %s\n", "TIME", "BOOT", boot.Heading()) + line
			heading = false
		}
		_, err := io.WriteString(w, line)
		return err
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := "(devel)"
			if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
				v = info.Main.Version
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "nestctl", v)
			return err
		},
	}
}
