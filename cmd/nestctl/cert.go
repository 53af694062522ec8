package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

// issued is a certificate that the authority gave to a set.
type issued struct {
	Serial     string    `json:"serial"`
	Set        string    `json:"set"`
	State      string    `json:"state"`
	IssuedAt   time.Time `json:"issued_at"`
	NotAfter   time.Time `json:"not_after"`
	Generation int       `json:"generation"`
}

// certificates is the command group for what the authority has issued.
func certificates(socket *string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "cert", Short: "Certificates of artifact sets: list and revoke single ones", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(certList(socket), certRevoke(socket))
	return cmd
}

func certList(socket *string) *cobra.Command {
	type answer struct {
		Certificates []issued `json:"certificates"`
	}
	return listCommand(socket, &cobra.Command{Short: "List the certificates that the authority has issued to sets"}, "/certificates",
		func(w io.Writer, a answer) error {
			if len(a.Certificates) == 0 {
				_, err := fmt.Fprintln(w, "No certificate was issued yet: nestctl artifact create rack1")
				return err
			}
			rows := [][]string{{"SERIAL", "SET", "STATE", "ISSUED", "ENDS", "GENERATION"}}
			for _, x := range a.Certificates {
				rows = append(rows, []string{x.Serial, x.Set, x.State, stamp(x.IssuedAt), stamp(x.NotAfter), strconv.Itoa(x.Generation)})
			}
			return table(w, rows)
		})
}

func certRevoke(socket *string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke SERIAL", Short: "Revoke one certificate: it is refused from then on", Args: cobra.ExactArgs(1),
		Long: "Revoke one certificate of a set. At once it is refused, its connections are closed, downloads that\n" +
			"run too, and boots that began with it get no config. The set's other certificates stay good: after\n" +
			"nestctl artifact renew, this ends the former one without waiting for its end.\n\n" +
			"It does not stop the set: bootd makes another certificate, within a minute, for a set whose last one is\n" +
			"revoked, and serves it where the set is served. To stop it: nestctl artifact delete.",
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		show := func(w io.Writer, a struct {
			Certificate issued `json:"certificate"`
		},
		) error {
			_, err := fmt.Fprintf(w, "certificate %s of set %s is revoked: it is refused, and its connections are closed.\n"+
				"If it was the one in the set's files, bootd makes another within a minute, and serves it where %s is served\n"+
				"(nestctl artifact show %s): media must be written anew. To stop the set: nestctl artifact delete %s\n",
				a.Certificate.Serial, a.Certificate.Set, a.Certificate.Set, a.Certificate.Set, a.Certificate.Set)
			return err
		}
		return tell(cmd.Context(), c, cmd.OutOrStdout(), output, http.MethodDelete, "/certificates/"+url.PathEscape(args[0]), nil, show)
	}
	return cmd
}
