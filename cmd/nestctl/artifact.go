package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nestboot/nestboot/ipxebuild"
)

// set is an artifact set as bootd's API shows it.
type set struct {
	ID          int64             `json:"id"`
	Name        string            `json:"name"`
	Status      string            `json:"status"`
	Reason      string            `json:"status_reason"`
	ExpiresAt   *time.Time        `json:"expires_at"`
	Archs       []string          `json:"archs"`
	Keyless     bool              `json:"keyless"`
	Machines    []string          `json:"machines"`
	Base        string            `json:"base"`
	Exposure    []string          `json:"exposure"`
	Means       string            `json:"exposure_means"`
	Generation  int               `json:"generation"`
	Options     ipxebuild.Options `json:"options"`
	Certificate *struct {
		Serial   string    `json:"serial"`
		NotAfter time.Time `json:"not_after"`
	} `json:"certificate"`
	Files    []setFile  `json:"files"`
	Missing  []string   `json:"missing"`
	LastUsed *time.Time `json:"last_used"`
	UsedBy   []struct {
		Machine string    `json:"machine"`
		At      time.Time `json:"at"`
	} `json:"used_by"`
}

// setAnswer is an answer about one set.
type setAnswer struct {
	Set set `json:"ipxe_boot_artifact"`
}

type setFile struct {
	Name     string           `json:"name"`
	Format   ipxebuild.Format `json:"format"`
	HoldsKey bool             `json:"holds_key"`
	URL      *string          `json:"url"`
}

// artifacts is the command group for artifact sets.
func artifacts(socket *string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "artifact", Short: "Artifact sets: the boot files of a rack, with the certificate that its machines share",
		Long: "An artifact set is the boot files of one rack: images and network boot programs, with a client\n" +
			"certificate of their own inside. Whoever holds a file of a set can boot as one of its machines.\n" +
			"Deleting a set makes its certificate useless at once; several sets can exist at a time, so make\n" +
			"the next one, move the machines over, then delete the former.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(artifactCreate(socket), artifactList(socket), artifactShow(socket), artifactUpdate(socket),
		artifactDelete(socket), artifactRenew(socket), artifactDownload(socket), artifactBuild(), artifactInspect())
	return cmd
}

// findSet finds a set by its name or, where no set has that name, its number.
func (c *client) findSet(ctx context.Context, name string) (set, error) {
	var answer struct {
		Sets []set `json:"ipxe_boot_artifacts"`
	}
	if err := c.get(ctx, "/ipxe_boot_artifacts", &answer); err != nil {
		return set{}, err
	}
	for _, s := range answer.Sets {
		if strings.EqualFold(s.Name, name) {
			return s, nil
		}
	}
	for _, s := range answer.Sets {
		if strconv.FormatInt(s.ID, 10) == name {
			return s, nil
		}
	}
	if len(answer.Sets) == 0 {
		return set{}, fmt.Errorf("there is no artifact set %q, nor any other: nestctl artifact create %s", name, name)
	}
	return set{}, fmt.Errorf("there is no artifact set %q: nestctl artifact list", name)
}

func setPath(s set) string { return "/ipxe_boot_artifacts/" + strconv.FormatInt(s.ID, 10) }

// onSet makes a command that is about one set.
func onSet(socket *string, cmd *cobra.Command, run func(cmd *cobra.Command, c *client, s set, args []string) error) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		s, err := c.findSet(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return run(cmd, c, s, args)
	}
	return cmd
}

func artifactList(socket *string) *cobra.Command {
	type answer struct {
		Sets []set `json:"ipxe_boot_artifacts"`
	}
	return listCommand(socket, &cobra.Command{Short: "List artifact sets"}, "/ipxe_boot_artifacts", func(w io.Writer, a answer) error {
		return printSets(w, a.Sets)
	})
}

func artifactShow(socket *string) *cobra.Command {
	var output *format
	cmd := onSet(socket, &cobra.Command{
		Use: "show NAME", Short: "Show a set, its files and their addresses", Args: cobra.ExactArgs(1),
		Long: "Show a set by its name or number: what it is made of, its files as DHCP names them, and their\n" +
			"addresses. An address has a token: whoever has it can read the set's private key.",
	}, func(cmd *cobra.Command, c *client, s set, _ []string) error {
		show := func(w io.Writer, a setAnswer) error { return printDetails(w, a.Set, true) }
		return tell(cmd.Context(), c, cmd.OutOrStdout(), output, http.MethodGet, setPath(s), nil, show)
	})
	output = outputFlag(cmd)
	return cmd
}

func artifactUpdate(socket *string) *cobra.Command {
	var serve, withdraw []string
	cmd := onSet(socket, &cobra.Command{
		Use: "update NAME", Short: "Change over which protocols a set is served", Args: cobra.ExactArgs(1),
		Long: "Change over which protocols the files of a set are served. Nothing else of a set can be changed:\n" +
			"create another one instead.\n\n" + serveHelp,
		Example: "  nestctl artifact update rack1 --serve tftp      # PXE boot from now on\n" +
			"  nestctl artifact update rack1 --withdraw tftp   # and no more",
	}, func(cmd *cobra.Command, c *client, s set, _ []string) error {
		if len(serve)+len(withdraw) == 0 {
			return fmt.Errorf("nothing to change: say --serve or --withdraw with https, http or tftp")
		}
		var answer setAnswer
		change := map[string][]string{"serve": serve, "withdraw": withdraw}
		if err := c.call(cmd.Context(), http.MethodPatch, setPath(s), change, &answer); err != nil {
			return err
		}
		return printExposure(cmd.OutOrStdout(), answer.Set)
	})
	cmd.Flags().StringSliceVar(&serve, "serve", nil, "serve the set over these `PROTOCOLS` too: https, http, tftp")
	cmd.Flags().StringSliceVar(&withdraw, "withdraw", nil, "serve the set over these `PROTOCOLS` no longer")
	return cmd
}

const serveHelp = "A set holds a private key. Over https its files lie at addresses with a secret token. Firmware that\n" +
	"boots by PXE needs tftp, UEFI HTTP Boot needs http; over both, anybody on the provisioning network\n" +
	"can read the key and boot as one of the set's machines. docs/security.md says what that risks."

func artifactDelete(socket *string) *cobra.Command {
	return onSet(socket, &cobra.Command{
		Use: "delete NAME", Short: "Delete a set: its certificate is refused from then on", Args: cobra.ExactArgs(1),
		Long: "Delete a set. At once, its files are served no longer, its certificate and its UEFI URLs are refused,\n" +
			"connections that showed them are closed, and boots that have begun get no config. It cannot be\n" +
			"undone: a set of the same name is another one.\n" +
			"`nestctl artifact show NAME` tells which machines used it last.",
	}, func(cmd *cobra.Command, c *client, s set, _ []string) error {
		var answer any
		if err := c.call(cmd.Context(), http.MethodDelete, setPath(s), nil, &answer); err != nil {
			return err
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "set %s is deleted: its certificate and its URLs are refused and its files are not served.\n", s.Name)
		return err
	})
}
