package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nestboot/nestboot/images/pull"
	"github.com/nestboot/nestboot/images/signature"
)

// image is a release as bootd's API shows it.
type image struct {
	ID      string      `json:"id"`
	System  string      `json:"system"`
	Channel string      `json:"channel"`
	Version string      `json:"version"`
	Arch    string      `json:"arch"`
	Kernel  imageFile   `json:"kernel"`
	Initrds []imageFile `json:"initrds"`
	Args    []string    `json:"args"`
	Source  string      `json:"source"`
	Pulled  time.Time   `json:"pulled_at"`
	Proof   struct {
		Kind   string            `json:"kind"`
		Signed *signature.Signed `json:"signed"`
	} `json:"proof"`
	Damaged []string `json:"damaged"`
	InUse   bool     `json:"in_use"`
	Size    int64    `json:"size"`
}

type imageFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// imageAnswer is an answer about one release.
type imageAnswer struct {
	Image image `json:"image"`
}

// images is the command group for releases of operating systems.
func images(socket *string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "image", Short: "Releases of operating systems: get them here, verified, and keep them whole",
		Long: "A release is what machines boot: a kernel, initrds and kernel arguments of one version of an operating\n" +
			"system. It is named system:channel:version, like flatcar:stable:4230.2.0, and images of bootd.yaml name\n" +
			"the one that machines get. Flatcar, Fedora CoreOS and Debian's installer are known; downloads.systems\n" +
			"of bootd.yaml describes others (docs/images.md).",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(imagePull(socket), imageList(socket), imageInspect(socket), imageVerify(socket), imageRemove(socket), imageCollect(socket),
		imageExport(socket), imageImport(socket))
	return cmd
}

func imageList(socket *string) *cobra.Command {
	return listCommand(socket, &cobra.Command{Short: "List the releases that are here"}, "/images", printImages)
}

// archFlag adds --arch, which stands beside the name of a release.
func archFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("arch", "x86_64", "`ARCHITECTURE` of the machines: x86_64 or arm64")
}

// imagePath is the path of a release in the API. A name may have its
// architecture behind it, as bootd prints it.
func imagePath(name, arch string) string {
	if strings.Count(name, ":") == 2 {
		name += ":" + arch
	}
	return "/images/" + url.PathEscape(name)
}

// imageCommand completes a command about one release that is here.
func imageCommand(socket *string, cmd *cobra.Command, run func(cmd *cobra.Command, c *client, output *format, path string) error) *cobra.Command {
	arch, output := archFlag(cmd), outputFlag(cmd)
	cmd.Args = cobra.ExactArgs(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		return run(cmd, c, output, imagePath(args[0], *arch))
	}
	return cmd
}

func imageInspect(socket *string) *cobra.Command {
	return imageCommand(socket, &cobra.Command{
		Use: "inspect RELEASE", Short: "Show a release: its files, its arguments and who signed it",
		Example: "  nestctl image inspect flatcar:stable:4230.2.0",
	}, func(cmd *cobra.Command, c *client, output *format, path string) error {
		return tell(cmd.Context(), c, cmd.OutOrStdout(), output, http.MethodGet, path, nil, printImage)
	})
}

func imageVerify(socket *string) *cobra.Command {
	return imageCommand(socket, &cobra.Command{
		Use: "verify RELEASE", Short: "Read a whole release and compare it with its digests",
		Long: "Read every file of a release and compare it with its digest. One that differs is taken out, and the\n" +
			"release is not served until it is pulled again. bootd does so by itself once a day.",
	}, func(cmd *cobra.Command, c *client, output *format, path string) error {
		var raw json.RawMessage
		if err := c.callFor(cmd.Context(), longTimeout, http.MethodPost, path+"/verify", nil, &raw); err != nil {
			return err
		}
		var answer imageAnswer
		if err := json.Unmarshal(raw, &answer); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		err := output.print(cmd.OutOrStdout(), raw, func() error { return printVerified(cmd.OutOrStdout(), answer.Image) })
		if i := answer.Image; err == nil && len(i.Damaged) > 0 {
			err = fmt.Errorf("%s is damaged: %s", i.ID, strings.Join(i.Damaged, ", "))
		}
		return err
	})
}

func imageRemove(socket *string) *cobra.Command {
	return imageCommand(socket, &cobra.Command{
		Use: "rm RELEASE", Short: "Remove a release that no machine boots",
		Long: "Remove a release, and those of its files that no other release needs. One that images of bootd.yaml\n" +
			"name is refused. An older version than was ever here does not come back without --force.",
	}, func(cmd *cobra.Command, c *client, output *format, path string) error {
		return tell(cmd.Context(), c, cmd.OutOrStdout(), output, http.MethodDelete, path, nil, printRemoved)
	})
}

func imageCollect(socket *string) *cobra.Command {
	keep, dry := 2, false
	cmd := &cobra.Command{
		Use: "gc", Short: "Remove releases that no machine boots, and what nobody needs", Args: cobra.NoArgs,
		Long: "Remove releases that no image of bootd.yaml names, but the newest of each system, channel and\n" +
			"architecture (--keep), then files that no release needs, downloads that nobody went on with for a week,\n" +
			"and damaged files.",
	}
	output := outputFlag(cmd)
	cmd.Flags().IntVar(&keep, "keep", keep, "keep the `N` newest of each system, channel and architecture")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would be removed")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		in := map[string]any{"keep": keep, "dry_run": dry}
		return tell(cmd.Context(), c, cmd.OutOrStdout(), output, http.MethodPost, "/images/collect", in, printCollected(dry))
	}
	return cmd
}

// longTimeout is above what reading a release takes.
const longTimeout = time.Hour

func imagePull(socket *string) *cobra.Command {
	var in pull.Request
	var keys string
	cmd := &cobra.Command{
		Use: "pull RELEASE", Short: "Get a release here and verify it", Args: cobra.ExactArgs(1),
		Long: "Get a release from its maker's site, from a mirror (--mirror) or from a folder on bootd's host (--from),\n" +
			"and verify it before anything of it can be seen: by the maker's OpenPGP signature, against the primary\n" +
			"key whose fingerprint is pinned. The version may be current: it becomes the number that it is now, which\n" +
			"is printed, and stays that.\n\n" +
			"Ctrl-C stops a download; the next pull goes on where it ended. A version that is older than one that was\n" +
			"here is refused without --force.",
		Example: "  nestctl image pull flatcar:stable:4230.2.0\n" +
			"  nestctl image pull flatcar:stable:current --arch arm64\n" +
			"  nestctl image pull flatcar:stable:4230.2.0 --mirror https://mirror.example.com/flatcar\n" +
			"  nestctl image pull debian-installer:trixie:current --from /mnt/stick",
	}
	arch, output := archFlag(cmd), outputFlag(cmd)
	fs := cmd.Flags()
	fs.StringVar(&in.Mirror, "mirror", "", "`URL` of a mirror; {channel} in it stands for the channel")
	fs.StringVar(&in.Folder, "from", "", "`DIR` on bootd's host, laid out like the mirror or flat")
	fs.BoolVar(&in.PlainHTTP, "plain-http", false, "allow http://: others see and may delay what is fetched, signatures tell what they change")
	fs.BoolVar(&in.Force, "force", false, "take an older version than one that was here, or get again what is here")
	fs.BoolVar(&in.Unsigned, "unsigned", false, "take a system whose makers sign nothing as it comes")
	fs.StringToStringVar(&in.SHA256, "sha256", nil, "`FILE=DIGEST` that a file must have, several times")
	fs.StringVar(&keys, "keys", "", "`FILE` with the maker's public keys, instead of getting them; which count is pinned")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		in.Ref, in.Arch = args[0], *arch
		if err := localPaths(&in, keys); err != nil {
			return err
		}
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		raw, err := c.pull(cmd.Context(), in, newProgress(cmd.ErrOrStderr()))
		if err != nil {
			return err
		}
		var answer imageAnswer
		if err := json.Unmarshal(raw, &answer); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		return output.print(cmd.OutOrStdout(), raw, func() error { return printPulled(cmd.OutOrStdout(), answer.Image) })
	}
	return cmd
}

// localPaths turns what is named relative to here into what bootd understands.
func localPaths(in *pull.Request, keys string) error {
	if in.Folder != "" {
		dir, err := filepath.Abs(in.Folder)
		if err != nil {
			return fmt.Errorf("find --from: %w", err)
		}
		in.Folder = dir
	}
	if keys != "" {
		data, err := readFile(keys, signature.MaxKeys)
		if err != nil {
			return err
		}
		in.Keys = string(data)
	}
	return nil
}

// pull asks bootd for a release and shows how far it is.
func (c *client) pull(ctx context.Context, in pull.Request, show *progress) (json.RawMessage, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	return c.watch(ctx, request{method: http.MethodPost, path: "/images", accept: "text/event-stream", body: body}, show)
}
