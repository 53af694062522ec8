package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// chainURL and uefiURL are URLs with a token as bootd's API shows them.
type chainURL struct {
	linkBase
	Machines []string `json:"machines"`
	URL      *string  `json:"url"`
	HTTP     *string  `json:"http_url"`
	HTTPS    *string  `json:"https_url"`
	Script   string   `json:"script"`
}

type uefiURL struct {
	linkBase
	SetID      int64   `json:"ipxe_boot_artifact_id"`
	Set        string  `json:"ipxe_boot_artifact_name"`
	HTTPAMD64  *string `json:"http_url_amd64"`
	HTTPARM64  *string `json:"http_url_arm64"`
	HTTPSAMD64 *string `json:"https_url_amd64"`
	HTTPSARM64 *string `json:"https_url_arm64"`
}

// linkBase is what both have.
type linkBase struct {
	ID        int64      `json:"id"`
	Name      string     `json:"name"`
	Status    string     `json:"status"`
	Reason    string     `json:"status_reason"`
	ExpiresAt *time.Time `json:"expires_at"`
	Protocols string     `json:"protocols"`
	Means     string     `json:"exposure_means"`
	Uses      int64      `json:"uses"`
	LastUsed  *time.Time `json:"last_used"`
}

type chainAnswer struct {
	URL chainURL `json:"ipxe_chain_url"`
}

type uefiAnswer struct {
	URL uefiURL `json:"uefi_http_boot_url"`
}

// allURLs is every URL of both kinds.
type allURLs struct {
	Chain []chainURL `json:"ipxe_chain_urls"`
	UEFI  []uefiURL  `json:"uefi_http_boot_urls"`
}

// urls is the command group for URLs with a secret token.
func urls(socket *string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "url", Short: "URLs with a secret token, for machines that hold no artifact of ours",
		Long: "A chain URL is for an iPXE that is there already, a provider's for example: it answers a whole iPXE\n" +
			"script, and who has it can boot. A UEFI URL serves the EFI file of one artifact set to firmware that\n" +
			"does UEFI HTTP Boot. Each has a secret token that can be revoked by itself.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	create := &cobra.Command{
		Use: "create", Short: "Make a URL", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	create.AddCommand(urlCreateChain(socket), urlCreateUEFI(socket))
	cmd.AddCommand(create, urlList(socket), urlShow(socket), urlRevoke(socket))
	return cmd
}

// newURL is the body of a request to make a URL.
type newURL struct {
	Name      string     `json:"name"`
	ExpiresAt *time.Time `json:"expires_at"`
	Protocols string     `json:"protocols"`
	Machines  []string   `json:"machines,omitempty"`
}

// urlFlags are the flags that both kinds have.
type urlFlags struct {
	expires        string
	http, httpOnly bool
}

func (f *urlFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.expires, "expires", "", "`DATE` (2027-01-31, RFC 3339) or time from now (90d, 12h) of its end (default: none)")
	cmd.Flags().BoolVar(&f.http, "http", false, "answer over plain HTTP too: the network can read all of it")
	cmd.Flags().BoolVar(&f.httpOnly, "http-only", false, "answer over plain HTTP alone")
	cmd.MarkFlagsMutuallyExclusive("http", "http-only")
}

func (f *urlFlags) request(name string) (newURL, error) {
	n := newURL{Name: name, Protocols: "https_only"}
	switch {
	case f.http:
		n.Protocols = "http_and_https"
	case f.httpOnly:
		n.Protocols = "http_only"
	}
	var err error
	n.ExpiresAt, err = parseExpires(f.expires, time.Now())
	return n, err
}

func urlCreateChain(socket *string) *cobra.Command {
	var f urlFlags
	var machines []string
	cmd := &cobra.Command{
		Use: "chain NAME", Short: "Make an iPXE chain URL", Args: cobra.ExactArgs(1),
		Long: "Make a URL that answers a whole iPXE script: give it to whatever lets you name one, such as a\n" +
			"provider's \"custom iPXE\" field, or paste the script itself.\n\n" +
			"Over https, the iPXE there must be able to verify boot.<domain>. A stock iPXE trusts no private\n" +
			"authority, so it needs a publicly trusted server certificate (certificates in bootd.yaml), or --http:\n" +
			"then anybody on the way can read the token, what the machine boots and its configuration, and can\n" +
			"change them. docs/trust.md compares the ways.",
		Example: "  nestctl url create chain metal1 --expires 30d --machine 4c4c4544-0042-3510-8052-b4c04f564433\n" +
			"  nestctl url create chain lab --http",
	}
	f.add(cmd)
	cmd.Flags().StringSliceVar(&machines, "machine", nil, "limit it to the machine with this `UUID`; may be repeated (default: any machine)")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n, err := f.request(args[0])
		if err != nil {
			return err
		}
		n.Machines = machines
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		return tell(cmd.Context(), c, cmd.OutOrStdout(), output, http.MethodPost, "/ipxe_chain_urls", n, printNewChain)
	}
	return cmd
}

func urlCreateUEFI(socket *string) *cobra.Command {
	var f urlFlags
	var set string
	cmd := &cobra.Command{
		Use: "uefi NAME --set SET", Short: "Make a UEFI HTTP Boot URL for the files of a set", Args: cobra.ExactArgs(1),
		Long: "Make a URL that serves the EFI files of an artifact set to firmware that does UEFI HTTP Boot, by a\n" +
			"boot option or by DHCP. Firmware shows no certificate: who has the URL has the files, and the private\n" +
			"key in them.\n\n" +
			"Over https, the firmware must trust this server's root (nestctl ca export --format esl, or its setup\n" +
			"menu); with --http it needs nothing, and anybody on the way can read the key. docs/trust.md has more.",
		Example: "  nestctl url create uefi dc1 --set rack1\n" +
			"  nestctl url create uefi lab --set rack1 --http-only --expires 7d",
	}
	f.add(cmd)
	cmd.Flags().StringVar(&set, "set", "", "artifact `SET` whose files it serves")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n, err := f.request(args[0])
		if err != nil {
			return err
		}
		if set == "" {
			return errors.New("--set is missing: the artifact set whose files the URL serves (nestctl artifact list)")
		}
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		s, err := c.findSet(cmd.Context(), set)
		if err != nil {
			return err
		}
		return tell(cmd.Context(), c, cmd.OutOrStdout(), output, http.MethodPost, setPath(s)+"/uefi_http_boot_urls", n, printNewUEFI)
	}
	return cmd
}

func urlList(socket *string) *cobra.Command {
	return listCommand(socket, &cobra.Command{
		Short: "List URLs; the table does not show their tokens",
	}, "/token_urls", printURLs)
}

// which says which URL a command is about.
type which struct {
	kind, set string
}

func (x *which) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&x.kind, "kind", "", "chain or uefi, where both have one of that `KIND` and name")
	cmd.Flags().StringVar(&x.set, "set", "", "artifact `SET` of a UEFI URL, where several have one of that name")
}

// find returns the API's path of the one URL that is meant, and its kind.
func (x *which) find(ctx context.Context, c *client, name string) (path, kind string, err error) {
	if x.kind != "" && x.kind != "chain" && x.kind != "uefi" {
		return "", "", fmt.Errorf("--kind %q is neither chain nor uefi", x.kind)
	}
	var all allURLs
	if err := c.get(ctx, "/token_urls", &all); err != nil {
		return "", "", err
	}
	var found []string
	for _, u := range all.Chain {
		if x.kind != "uefi" && x.set == "" && strings.EqualFold(u.Name, name) {
			path, kind = "/ipxe_chain_urls/"+strconv.FormatInt(u.ID, 10), "chain"
			found = append(found, "--kind chain")
		}
	}
	for _, u := range all.UEFI {
		if x.kind != "chain" && (x.set == "" || strings.EqualFold(x.set, u.Set)) && strings.EqualFold(u.Name, name) {
			path, kind = fmt.Sprintf("/ipxe_boot_artifacts/%d/uefi_http_boot_urls/%d", u.SetID, u.ID), "uefi"
			found = append(found, "--set "+u.Set)
		}
	}
	switch len(found) {
	case 0:
		return "", "", fmt.Errorf("there is no such URL %q: nestctl url list", name)
	case 1:
		return path, kind, nil
	}
	return "", "", fmt.Errorf("several URLs are called %q: say which with %s", name, strings.Join(found, " or "))
}

// onURL makes a command that is about one URL: ask sends the request for a path
// and prints the answer.
func onURL(socket *string, cmd *cobra.Command, method string, chain, uefi printURL) *cobra.Command {
	var x which
	x.add(cmd)
	output := outputFlag(cmd)
	cmd.Args = cobra.ExactArgs(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		path, kind, err := x.find(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		if kind == "chain" {
			return chain(cmd, c, output, method, path)
		}
		return uefi(cmd, c, output, method, path)
	}
	return cmd
}

type printURL func(cmd *cobra.Command, c *client, output *format, method, path string) error

func urlShow(socket *string) *cobra.Command {
	return onURL(socket, &cobra.Command{
		Use: "show NAME", Short: "Show a URL with its token, and who used it",
	}, http.MethodGet,
		func(cmd *cobra.Command, c *client, output *format, method, path string) error {
			return tell(cmd.Context(), c, cmd.OutOrStdout(), output, method, path, nil, printChain)
		},
		func(cmd *cobra.Command, c *client, output *format, method, path string) error {
			return tell(cmd.Context(), c, cmd.OutOrStdout(), output, method, path, nil, printUEFI)
		})
}

func urlRevoke(socket *string) *cobra.Command {
	return onURL(socket, &cobra.Command{
		Use: "revoke NAME", Short: "End a URL: its token is refused from then on",
		Long: "End a URL. At once its token is refused, its connections are closed, downloads that run too, and boots\n" +
			"that began with it get no config. It cannot be undone: a URL of the same name has another token.",
	}, http.MethodDelete,
		func(cmd *cobra.Command, c *client, output *format, method, path string) error {
			return tell(cmd.Context(), c, cmd.OutOrStdout(), output, method, path, nil, printRevokedChain)
		},
		func(cmd *cobra.Command, c *client, output *format, method, path string) error {
			return tell(cmd.Context(), c, cmd.OutOrStdout(), output, method, path, nil, printRevokedUEFI)
		})
}

// hostOf is the host name in a URL.
func hostOf(s *string) string {
	if s == nil {
		return ""
	}
	u, err := url.Parse(*s)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
