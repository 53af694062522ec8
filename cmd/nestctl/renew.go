package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

func artifactRenew(socket *string) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "renew (NAME | --all)", Short: "Give a set a new certificate, of the newest root", Args: cobra.MaximumNArgs(1),
		Long: "Give a set a new certificate of the newest root generation. From then on its files trust that root and\n" +
			"hold the new certificate; machines that fetch them at each boot notice nothing. The former certificate\n" +
			"stays good until it ends, is revoked (nestctl cert revoke) or its generation is dropped (nestctl ca\n" +
			"drop), so media that were written before go on until then.\n\n" +
			"--all renews every set that is of an older generation; what is done is not done again. Expired\n" +
			"sets are passed over and named.",
		Example: "  nestctl artifact renew rack1\n  nestctl artifact renew --all     # after nestctl ca rotate --root",
	}
	output := outputFlag(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "every set of an older generation")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if all == (len(args) == 1) {
			return errors.New("say either the name of a set or --all")
		}
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		if all {
			return renewAll(cmd, c, output)
		}
		s, err := c.findSet(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return renew(cmd, c, output, s)
	}
	return cmd
}

func renew(cmd *cobra.Command, c *client, output *format, s set) error {
	if err := tell(cmd.Context(), c, cmd.OutOrStdout(), output, http.MethodPost, setPath(s)+"/renew", nil, printRenewed); err != nil {
		return fmt.Errorf("renew set %s: %w", s.Name, err)
	}
	return nil
}

// renewAll renews what a new root has left behind, and goes on after a set that
// cannot be renewed.
func renewAll(cmd *cobra.Command, c *client, output *format) error {
	newest, err := c.newestGeneration(cmd.Context())
	if err != nil {
		return err
	}
	var list struct {
		Sets []set `json:"ipxe_boot_artifacts"`
	}
	if err := c.get(cmd.Context(), "/ipxe_boot_artifacts", &list); err != nil {
		return err
	}
	old, expired := leftBehind(list.Sets, newest.Number)
	var errs []error
	for _, s := range old {
		errs = append(errs, renew(cmd, c, output, s))
	}
	for _, s := range expired {
		_, err := fmt.Fprintf(cmd.ErrOrStderr(), "set %s has expired and is left as it is: nestctl artifact delete %s\n", s.Name, s.Name)
		errs = append(errs, err)
	}
	if len(old) == 0 && output.value == "table" {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "every set that can be renewed is of generation %d, the newest: nothing to do.\n", newest.Number)
		return err
	}
	return errors.Join(errs...)
}

// leftBehind are the sets that are not of the newest generation: those to renew,
// and those whose own end is over, which nothing can.
func leftBehind(sets []set, newest int) (old, expired []set) {
	for _, s := range sets {
		switch {
		case s.Generation == newest:
		case s.Status == "expired" && s.ExpiresAt != nil:
			expired = append(expired, s)
		default:
			old = append(old, s)
		}
	}
	return old, expired
}

func printRenewed(w io.Writer, a setAnswer) error {
	s := a.Set
	what := fmt.Sprintf("set %s is of generation %d", s.Name, s.Generation)
	if s.Certificate != nil {
		what += fmt.Sprintf(", with certificate %s until %s", s.Certificate.Serial, stamp(s.Certificate.NotAfter))
	}
	_, err := fmt.Fprintf(w, "%s.\nMachines that fetch it at each boot have it at the next; write media anew: nestctl artifact download %s\n", what, s.Name)
	return err
}
