package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// generation is one trust root as bootd's API shows it.
type generation struct {
	Number       int           `json:"number"`
	Host         string        `json:"host"`
	URL          string        `json:"url"`
	Source       string        `json:"source"`
	Newest       bool          `json:"newest"`
	Trust        shownCert     `json:"trust"` // what its machines trust: root, or that of given certificates
	Root         shownCert     `json:"root"`
	Intermediate shownCert     `json:"intermediate"`
	Sets         []dependingOn `json:"sets"`
	Trusted      []dependingOn `json:"trusted"`
}

type shownCert struct {
	Subject     string    `json:"subject"`
	Serial      string    `json:"serial"`
	Fingerprint string    `json:"fingerprint"`
	NotAfter    time.Time `json:"not_after"`
}

// dependingOn is a set, or a registered authority or pin, whose machines still
// trust a generation.
type dependingOn struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
	Why  string `json:"why"`
}

// authorityAnswer is the answer about the whole authority.
type authorityAnswer struct {
	Authority struct {
		Generations []generation `json:"generations"`
		Servers     []serverName `json:"server_certificates"`
	} `json:"authority"`
}

// serverName is one certificate of one host name.
type serverName struct {
	Host     string    `json:"host"`
	Answered bool      `json:"answered"`
	Source   string    `json:"source"`
	Type     string    `json:"type"`
	NotAfter time.Time `json:"not_after"`
	Warnings []string  `json:"warnings"`
}

// generationAnswer is the answer about one generation.
type generationAnswer struct {
	Generation generation `json:"generation"`
}

// newestGeneration is the one that new sets are of.
func (c *client) newestGeneration(ctx context.Context) (generation, error) {
	var status authorityAnswer
	if err := c.get(ctx, "/authority", &status); err != nil {
		return generation{}, err
	}
	for _, g := range status.Authority.Generations {
		if g.Newest {
			return g, nil
		}
	}
	return generation{}, errors.New("bootd's authority has no generation")
}

// authority is the command group for the boot authority.
func authority(socket *string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ca", Short: "The boot authority: its roots, their rotation, what machines must trust",
		Long: "The boot authority signs what machines and this server show each other. It has one root per\n" +
			"generation, and each generation a host name of its own (ipxe., ipxe-2., …), because an artifact set\n" +
			"trusts one root and the server can't see which. A new root is used beside the old one until the last\n" +
			"set has moved; docs/trust.md has the whole procedure: it begins with a name that must resolve.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(caStatus(socket), caRotate(socket), caDrop(socket), caExport(socket))
	return cmd
}

func caStatus(socket *string) *cobra.Command {
	cmd := listCommand(socket, &cobra.Command{
		Short: "Show the roots, who still depends on which, and the server's certificates",
	}, "/authority", printAuthority)
	cmd.Use = "status"
	return cmd
}

func printAuthority(w io.Writer, a authorityAnswer) error {
	rows := [][]string{{"GENERATION", "URL", "SOURCE", "ROOT ENDS", "INTERMEDIATE ENDS", "WHO NEEDS IT"}}
	for _, g := range a.Authority.Generations {
		number := strconv.Itoa(g.Number)
		if g.Newest {
			number += " (newest)"
		}
		rows = append(rows, []string{number, g.URL, g.Source, day(g.Trust.NotAfter), day(g.Intermediate.NotAfter), depending(g)})
	}
	rows = append(rows, []string{"\nSERVER NAME", "CERTIFICATE", "KEY", "ENDS"})
	for _, s := range a.Authority.Servers {
		if !s.Answered {
			continue
		}
		rows = append(rows, []string{s.Host, s.Source, s.Type, stamp(s.NotAfter)})
	}
	rows = append(rows, []string{"\nGENERATION", "SHA-256 OF THE ROOT THAT MACHINES TRUST", "WHICH IS"})
	for _, g := range a.Authority.Generations {
		rows = append(rows, []string{strconv.Itoa(g.Number), g.Trust.Fingerprint, g.trusts()})
	}
	if err := table(w, rows); err != nil {
		return err
	}
	for _, text := range sharedRoots(a.Authority.Generations) {
		if _, err := fmt.Fprintf(w, "warning: %s\n", text); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return printServerWarnings(w, a)
}

// printServerWarnings prints each warning once, with all names that it is about:
// one file may serve many.
func printServerWarnings(w io.Writer, a authorityAnswer) error {
	var texts []string
	hosts := map[string][]string{}
	for _, s := range a.Authority.Servers {
		for _, text := range s.Warnings {
			if hosts[text] == nil {
				texts = append(texts, text)
			}
			if !slices.Contains(hosts[text], s.Host) {
				hosts[text] = append(hosts[text], s.Host)
			}
		}
	}
	for _, text := range texts {
		if _, err := fmt.Fprintf(w, "warning: %s: %s\n", strings.Join(hosts[text], ", "), printable(text)); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}

// given reports whether its machines trust the root of given certificates.
func (g generation) given() bool { return g.Trust.Fingerprint != g.Root.Fingerprint }

// trusts says whose the root is that its machines trust.
func (g generation) trusts() string {
	if g.given() {
		return "of the given certificates: " + g.Trust.Subject
	}
	return "the authority's"
}

// sharedRoots warns of generations whose machines trust the same root: what was
// to end with the former one does not.
func sharedRoots(list []generation) (warnings []string) {
	for i, g := range list {
		for _, former := range list[:i] {
			if former.Trust.Fingerprint == g.Trust.Fingerprint {
				warnings = append(warnings, fmt.Sprintf("machines of generations %d and %d trust the same root, that of the given certificates: "+
					"dropping %d does not end it; give a certificate of another root for %s", former.Number, g.Number, former.Number, g.Host))
				break
			}
		}
	}
	return warnings
}

// depending names the sets and registered certificates that need a generation.
func depending(g generation) string {
	var names []string
	for i, s := range slices.Concat(g.Sets, g.Trusted) {
		name := s.Name
		if i >= len(g.Sets) {
			name = "registered " + name
		}
		if s.Why != "" {
			name += " (" + s.Why + ")"
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func caRotate(socket *string) *cobra.Command {
	var root bool
	cmd := &cobra.Command{
		Use: "rotate", Short: "Make a new intermediate, or a new root beside the old one", Args: cobra.NoArgs,
		Long: "Make a new intermediate in the newest generation: nothing changes for machines, the certificates\n" +
			"that they have stay good. With --root, make a new generation: a root of its own under a host name of\n" +
			"its own. Sets that exist go on under their old root until they are renewed.",
		Example: "  nestctl ca rotate          # a new intermediate: no machine notices\n" +
			"  nestctl ca rotate --root   # a new root; then nestctl artifact renew --all",
	}
	output := outputFlag(cmd)
	cmd.Flags().BoolVar(&root, "root", false, "make a new root, under a host name of its own")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		show := func(w io.Writer, a generationAnswer) error {
			if err := printRotated(w, a.Generation, root); err != nil || !root {
				return err
			}
			var status authorityAnswer
			if err := c.get(cmd.Context(), "/authority", &status); err != nil {
				return err
			}
			return printGivenRoot(w, a.Generation, status.Authority.Generations)
		}
		return tell(cmd.Context(), c, cmd.OutOrStdout(), output, http.MethodPost, "/authority/rotate", map[string]bool{"root": root}, show)
	}
	return cmd
}

func printRotated(w io.Writer, g generation, root bool) error {
	if !root {
		_, err := fmt.Fprintf(w, "generation %d has a new intermediate, with serial number %s, until %s.\n"+
			"Certificates that were issued before stay good; new ones are of this one.\n",
			g.Number, g.Intermediate.Serial, day(g.Intermediate.NotAfter))
		return err
	}
	_, err := fmt.Fprintf(w, "generation %d has a new root, until %s:\n%s\n\n"+
		"New sets are of this generation. Those that exist keep their root until nestctl artifact renew.\n"+
		"Next: 1. let %s resolve to this server, if it does not yet\n"+
		"      2. nestctl artifact renew --all, and write media anew\n"+
		"      3. make boot files with your own certificates anew (nestctl artifact build), enrol the root in firmware\n"+
		"      4. when nestctl ca status names nobody for the old generation: nestctl ca drop NUMBER\n",
		g.Number, day(g.Root.NotAfter), g.Root.Fingerprint, g.Host)
	return err
}

// printGivenRoot says what given certificates make of a new root.
func printGivenRoot(w io.Writer, g generation, all []generation) error {
	if !slices.ContainsFunc(all, generation.given) {
		return nil
	}
	_, err := fmt.Fprintf(w, "\nMachines here trust the root of given certificates (certificates in bootd.yaml). If a file covers\n"+
		"%s too, as a wildcard does, the new generation trusts that file's root, and no new one. Give a\n"+
		"certificate of another root for that name, before sets are renewed; nestctl ca status shows what is trusted.\n", g.Host)
	return err
}

func caDrop(socket *string) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "drop GENERATION", Short: "End an old generation: its certificates are refused, its keys removed", Args: cobra.ExactArgs(1),
		Long: "End an old generation. At once, its host name answers no more, every certificate that it issued is\n" +
			"refused, and its keys are removed. It cannot be undone. It is refused while sets depend on it, or\n" +
			"machines with registered certificates (nestctl trust) came by it last, and always for the newest one.\n\n" +
			"Machines that have not booted since nobody knows of. Nor does bootd know which firmware has this root\n" +
			"enrolled for HTTPS Boot: enrol the others before (nestctl ca export --format esl).",
	}
	output := outputFlag(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "also while somebody depends on it: those machines boot no more")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		number, err := strconv.Atoi(args[0])
		if err != nil {
			return fmt.Errorf("%q is not the number of a generation: nestctl ca status", args[0])
		}
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		path := "/authority/generations/" + strconv.Itoa(number)
		if force {
			path += "?force=true"
		}
		show := func(w io.Writer, a generationAnswer) error {
			text := fmt.Sprintf("generation %d is dropped: %s answers no more, and its certificates are refused.\n", number, a.Generation.Host)
			if len(a.Generation.Sets)+len(a.Generation.Trusted) > 0 {
				text += "These boot no machine until boot files of another generation are written: " + depending(a.Generation) + "\n"
			}
			text += "Firmware that boots by HTTPS with this root enrolled (TlsCaCertificate) needs another one: nestctl ca export --format esl\n"
			_, err := io.WriteString(w, text)
			return err
		}
		return tell(cmd.Context(), c, cmd.OutOrStdout(), output, http.MethodDelete, path, nil, show)
	}
	return cmd
}

// day is a date; stamp a point in time.
func day(t time.Time) string   { return t.UTC().Format(time.DateOnly) }
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
