package main

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/ipxebuild"
)

// newSet is the body of a request to make a set. What is left out gets bootd's
// default.
type newSet struct {
	Name      string            `json:"name"`
	ExpiresAt *time.Time        `json:"expires_at"`
	Archs     []boot.Arch       `json:"archs,omitempty"`
	KeyType   string            `json:"key_type,omitempty"`
	Keyless   bool              `json:"keyless,omitempty"`
	Machines  []string          `json:"machines,omitempty"`
	Base      string            `json:"base,omitempty"`
	Exposure  []string          `json:"exposure"`
	Options   ipxebuild.Options `json:"options,omitzero"`
}

func artifactCreate(socket *string) *cobra.Command {
	var n newSet
	var serve []string
	var expires string
	var output *format
	var options *setOptions
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make an artifact set", Args: cobra.ExactArgs(1),
		Long: "Make an artifact set: boot files in every format, with a client certificate of their own inside.\n" +
			"NAME has 1 to 32 lower-case letters, digits and hyphens, none at the ends, and begins the name of\n" +
			"every file.\n\n" + serveHelp,
		Example: "  nestctl artifact create rack1 --serve tftp          # to boot by PXE\n" +
			"  nestctl artifact create rack1 --serve http,tftp     # and by UEFI HTTP Boot\n" +
			"  nestctl artifact create visit --expires 30d --machine 4c4c4544-0042-3510-8052-b4c04f564433",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			n.Name = args[0]
			n.Exposure = withHTTPS(serve)
			if n.ExpiresAt, err = parseExpires(expires, time.Now()); err != nil {
				return err
			}
			if n.Archs, err = options.archs(); err != nil {
				return err
			}
			if n.Options, err = options.options(); err != nil {
				return err
			}
			n.Base = options.baseVersion
			return createSet(cmd, *socket, n, output)
		},
	}
	options = setOptionFlags(cmd.Flags())
	// There is no other base here than iPXE's; where a set is made from files,
	// --base is their path.
	cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "base" {
			name = "base-version"
		}
		return pflag.NormalizedName(name)
	})
	cmd.Flags().StringSliceVar(&serve, "serve", nil, "serve it over these `PROTOCOLS` beside https: http, tftp")
	cmd.Flags().StringVar(&expires, "expires", "", "`DATE` (2027-01-31, RFC 3339) or time from now (90d, 12h) of its end (default: it renews itself)")
	cmd.Flags().StringVar(&n.KeyType, "key-type", "", "`TYPE` of its key, rsa2048 or p256 (default rsa2048)")
	cmd.Flags().StringSliceVar(&n.Machines, "machine", nil, "limit it to the machine with this `UUID`; may be repeated (default: any machine)")
	cmd.Flags().BoolVar(&n.Keyless, "keyless", false, "put no certificate in: its machines wait until they are approved")
	output = outputFlag(cmd)
	return cmd
}

func createSet(cmd *cobra.Command, socket string, n newSet, output *format) error {
	c, err := dial(cmd.Context(), socket)
	if err != nil {
		return err
	}
	show := func(w io.Writer, a setAnswer) error {
		if err := printDetails(w, a.Set, false); err != nil {
			return err
		}
		return printNextStep(w, a.Set)
	}
	return tell(cmd.Context(), c, cmd.OutOrStdout(), output, http.MethodPost, "/ipxe_boot_artifacts", n, show)
}

// withHTTPS are the protocols to serve a new set over; bootd knows which there
// are.
func withHTTPS(serve []string) []string {
	out := []string{"https"}
	for _, p := range slices.Sorted(slices.Values(serve)) {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// parseExpires reads a day (to its end, UTC), a point in time, or a time from
// now in days, hours or what Go's durations know. Empty is nil.
func parseExpires(s string, now time.Time) (*time.Time, error) {
	if s == "" {
		return nil, nil
	}
	if day, err := time.Parse(time.DateOnly, s); err == nil {
		end := day.Add(24*time.Hour - time.Second)
		return &end, nil
	}
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return &at, nil
	}
	var d time.Duration
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n < 36500 {
			d = time.Duration(n) * 24 * time.Hour
		}
	} else if parsed, err := time.ParseDuration(s); err == nil {
		d = parsed
	}
	if d <= 0 {
		return nil, fmt.Errorf("--expires %q is neither a date like 2027-01-31 nor a time from now like 90d or 12h", s)
	}
	at := now.Add(d).UTC().Truncate(time.Second)
	return &at, nil
}
