package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/nestboot/nestboot/ipxebuild"
)

// maxArtifact is the largest file that inspect looks into; a set's image with
// everything in it has less than a tenth of that.
const maxArtifact = 64 << 20

func artifactInspect() *cobra.Command {
	var output *format
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Show what a boot artifact is made of: iPXE, trust root, certificate, URL",
		Long: "Show what a boot artifact is made of, any format of a set or a plain iPXE binary.\n" +
			"A private key inside is told of and never shown. Nothing is contacted.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readFile(args[0], maxArtifact)
			if err != nil {
				return err
			}
			r, err := ipxebuild.Inspect(args[0], data)
			if err != nil {
				return err
			}
			if output.value == "json" {
				return printJSON(cmd.OutOrStdout(), r)
			}
			return printReport(cmd.OutOrStdout(), r, time.Now())
		},
	}
	output = outputFlag(cmd, "table", "json")
	return cmd
}

// printReport prints a report, then those of its parts, with a line between.
func printReport(w io.Writer, r ipxebuild.Report, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, block := range reportBlocks(r, now) {
		if i > 0 {
			block = "\n" + block
		}
		if _, err := io.WriteString(t, block); err != nil {
			return fmt.Errorf("print report: %w", err)
		}
	}
	return t.Flush()
}

func reportBlocks(r ipxebuild.Report, now time.Time) []string {
	var b strings.Builder
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s:\t%s\n", key, printable(value))
		}
	}
	line("Part", r.Path)
	line("Format", r.Format)
	line("iPXE", r.Version)
	line("Trust root", r.Root)
	line("Set", r.Set)
	line("URL", r.URL)
	line("Certificate", cmp.Or(r.Subject, "none"))
	if !r.Expires.IsZero() {
		line("Expires", r.Expires.UTC().Format(time.RFC3339)+expiry(r.Expires, now))
	}
	key := "none inside"
	if r.HoldsKey {
		key = "INSIDE: whoever has this file can boot as its machines"
	}
	line("Private key", key)
	blocks := []string{b.String()}
	for _, p := range r.Parts {
		blocks = append(blocks, reportBlocks(p, now)...)
	}
	return blocks
}

// printable keeps what a foreign file says from commanding the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// expiry is what to know about a certificate's end besides its date.
func expiry(end, now time.Time) string {
	const day = 24 * time.Hour
	switch left := end.Sub(now); {
	case left <= 0:
		return " WARNING: expired, machines with it are refused"
	case left < 2*day:
		return fmt.Sprintf(" (in %d hours)", left/time.Hour)
	case left < 30*day:
		return fmt.Sprintf(" (in %d days)", left/day)
	}
	return ""
}
