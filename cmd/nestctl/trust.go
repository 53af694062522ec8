package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// trustedEntry is a registered certificate as bootd's API shows it.
type trustedEntry struct {
	ID           int64      `json:"id"`
	Name         string     `json:"name"`
	Kind         string     `json:"kind"`
	Match        string     `json:"match"`
	Allow        []string   `json:"allow"`
	Machines     []string   `json:"machines"`
	CRL          *crl       `json:"crl"`
	ExpiresAt    *time.Time `json:"expires_at"`
	Means        string     `json:"trust_means"`
	NotAfter     *time.Time `json:"not_after"`
	Certificates []struct {
		Subject     string    `json:"subject"`
		Fingerprint string    `json:"fingerprint"`
		NotAfter    time.Time `json:"not_after"`
	} `json:"certificates"`
	Uses     int64      `json:"uses"`
	LastUsed *time.Time `json:"last_used"`
	UsedBy   []struct {
		Subject string    `json:"subject"`
		Machine string    `json:"machine"`
		At      time.Time `json:"at"`
	} `json:"used_by"`
	Lists []struct {
		Issuer     string     `json:"issuer"`
		ThisUpdate time.Time  `json:"this_update"`
		NextUpdate *time.Time `json:"next_update"`
		Revoked    int        `json:"revoked"`
	} `json:"revocation_lists"`
	Faults []string `json:"faults"`
}

type crl struct {
	File  string `json:"file,omitempty"`
	URL   string `json:"url,omitempty"`
	Stale string `json:"stale,omitempty"`
}

type trustedAnswer struct {
	Trusted trustedEntry `json:"trusted_certificate"`
}

type trustedList struct {
	Trusted []trustedEntry `json:"trusted_certificates"`
}

const trustedPath = "/trusted_certificates"

// trust is the command group for certificates that others have issued.
func trust(socket *string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "trust", Short: "Certificates of your own authority, or single ones, with which machines may boot",
		Long: "Machines may boot with certificates that you issue: register the authority (--ca), or pin single\n" +
			"certificates or keys (--pin). Their key never comes here; nestctl artifact build puts it into boot\n" +
			"files on the machine where it is. Removing an entry takes effect at once.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(trustAdd(socket), trustList(socket), trustShow(socket), trustRemove(socket))
	return cmd
}

// newTrusted is the body of a request to register a certificate.
type newTrusted struct {
	Name      string     `json:"name"`
	Kind      string     `json:"kind"`
	PEM       string     `json:"pem"`
	Match     string     `json:"match,omitempty"`
	Allow     []string   `json:"allow,omitempty"`
	Machines  []string   `json:"machines,omitempty"`
	CRL       *crl       `json:"crl,omitempty"`
	ExpiresAt *time.Time `json:"expires_at"`
}

// trustFlags is the command line of trust add.
type trustFlags struct {
	ca, pin, match  string
	crl, stale      string
	expires         string
	allow, machines []string
}

func trustAdd(socket *string) *cobra.Command {
	var f trustFlags
	cmd := &cobra.Command{
		Use: "add NAME (--ca FILE | --pin FILE)", Short: "Let machines boot with a certificate of your own", Args: cobra.ExactArgs(1),
		Long: "Register an authority, with its intermediates if machines don't show them, or pin one certificate.\n" +
			"FILE is PEM or DER, without a private key. A machine's certificate must be for clientAuth.\n\n" +
			"--allow limits an authority to names: CN=, OU=, DNS:, URI: or EMAIL: with * for anything, such as\n" +
			"DNS:*.rack1.example.com. Without it every certificate of the authority may boot. --crl names its\n" +
			"revocation list, a file or a URL, looked at again by itself; while it is out of date nobody is let in,\n" +
			"unless --stale-crl accept. OCSP is not asked.",
		Example: "  nestctl trust add corp --ca corp-root.pem --allow 'CN=node-*' --crl http://pki.example.com/corp.crl\n" +
			"  nestctl trust add node7 --pin node7.pem --machine 4c4c4544-0042-3510-8052-b4c04f564433\n" +
			"  nestctl trust add hsm --pin hsm.pem --match key     # renewed certificates of the same key too",
	}
	fs := cmd.Flags()
	fs.StringVar(&f.ca, "ca", "", "`FILE` with the authority's certificate and its intermediates")
	fs.StringVar(&f.pin, "pin", "", "`FILE` with one certificate")
	fs.StringVar(&f.match, "match", "", "what a pin must `MATCH`: the certificate or its key (default certificate)")
	fs.StringSliceVar(&f.allow, "allow", nil, "`NAMES` that certificates of the authority may have; may be repeated (default: any)")
	fs.StringSliceVar(&f.machines, "machine", nil, "limit it to the machine with this `UUID`; may be repeated (default: any machine)")
	fs.StringVar(&f.crl, "crl", "", "`FILE|URL` of the authority's revocation list")
	fs.StringVar(&f.stale, "stale-crl", "", "`POLICY` while the list is missing or out of date, refuse or accept (default refuse)")
	fs.StringVar(&f.expires, "expires", "", "`DATE` (2027-01-31, RFC 3339) or time from now (90d, 12h) of its end (default: the certificate's)")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n, err := f.request(args[0])
		if err != nil {
			return err
		}
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		show := func(w io.Writer, a trustedAnswer) error {
			g, err := c.newestGeneration(cmd.Context())
			if err != nil {
				return err
			}
			return printNewTrusted(w, a, g)
		}
		return tell(cmd.Context(), c, cmd.OutOrStdout(), output, http.MethodPost, trustedPath, n, show)
	}
	return cmd
}

func (f *trustFlags) request(name string) (newTrusted, error) {
	n := newTrusted{Name: name, Match: f.match, Allow: f.allow, Machines: f.machines}
	path := f.ca
	switch {
	case (f.ca == "") == (f.pin == ""):
		return n, errors.New("say either --ca, for an authority, or --pin, for a single certificate")
	case f.ca != "":
		n.Kind = "ca"
	default:
		n.Kind, path = "pin", f.pin
	}
	text, key, err := readCertificates(path)
	switch {
	case key:
		return n, fmt.Errorf("%s holds a private key, which nestboot must never see: give a file with certificates alone", path)
	case err != nil:
		return n, err
	case f.crl == "" && f.stale != "":
		return n, errors.New("--stale-crl says what to do about an old list, and there is none: add --crl")
	}
	n.PEM = text
	if f.crl != "" {
		n.CRL = &crl{Stale: f.stale}
		if strings.Contains(f.crl, "://") {
			n.CRL.URL = f.crl
		} else if n.CRL.File, err = filepath.Abs(f.crl); err != nil { // bootd has a folder of its own
			return n, fmt.Errorf("find --crl: %w", err)
		}
	}
	n.ExpiresAt, err = parseExpires(f.expires, time.Now())
	return n, err
}

func trustList(socket *string) *cobra.Command {
	return listCommand(socket, &cobra.Command{Short: "List registered authorities and pins"}, trustedPath, printTrustedList)
}

// findTrusted finds an entry by its name or, where none has that name, its
// number.
func (c *client) findTrusted(ctx context.Context, name string) (trustedEntry, error) {
	var answer trustedList
	if err := c.get(ctx, trustedPath, &answer); err != nil {
		return trustedEntry{}, err
	}
	for _, t := range answer.Trusted {
		if strings.EqualFold(t.Name, name) {
			return t, nil
		}
	}
	for _, t := range answer.Trusted {
		if strconv.FormatInt(t.ID, 10) == name {
			return t, nil
		}
	}
	return trustedEntry{}, fmt.Errorf("there is no trusted certificate %q: nestctl trust list", name)
}

// onTrusted makes a command that is about one entry.
func onTrusted(socket *string, cmd *cobra.Command, method string, show func(io.Writer, trustedAnswer) error) *cobra.Command {
	output := outputFlag(cmd)
	cmd.Args = cobra.ExactArgs(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		t, err := c.findTrusted(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return tell(cmd.Context(), c, cmd.OutOrStdout(), output, method, trustedPath+"/"+strconv.FormatInt(t.ID, 10), nil, show)
	}
	return cmd
}

func trustShow(socket *string) *cobra.Command {
	return onTrusted(socket, &cobra.Command{
		Use: "show NAME", Short: "Show an authority or a pin, and who used it",
	}, http.MethodGet, printTrusted)
}

func trustRemove(socket *string) *cobra.Command {
	return onTrusted(socket, &cobra.Command{
		Use: "remove NAME", SuggestFor: []string{"delete", "rm"}, Short: "Trust it no more: its machines are refused from then on",
		Long: "Trust an authority or a pin no more. At once its certificates are refused, their connections are\n" +
			"closed, downloads that run too, and boots that began with them get no config.",
	}, http.MethodDelete, func(w io.Writer, a trustedAnswer) error {
		what := "the certificates of authority"
		if a.Trusted.Kind == "pin" {
			what = "the certificate pinned as"
		}
		_, err := fmt.Fprintf(w, "%s %s may boot no more: refused from now on, and its connections are closed.\n", what, a.Trusted.Name)
		return err
	})
}
