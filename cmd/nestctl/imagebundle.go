package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/nestboot/nestboot/images/bundle"
)

func imageExport(socket *string) *cobra.Command {
	noBases := false
	cmd := &cobra.Command{
		Use: "export FILE [RELEASE...]", Short: "Write releases and base binaries into one signed file, to carry them over an air gap",
		Long: "Write releases, all that are here unless some are named, and the binaries that artifact sets are made of\n" +
			"into one file. It is signed with a key of this bootd; its fingerprint is printed, and whoever imports the\n" +
			"file must be told it, by another way than the file.",
		Example: "  nestctl image export bundle.tar flatcar:stable:4230.2.0",
		Args:    cobra.MinimumNArgs(1),
	}
	arch := archFlag(cmd)
	cmd.Flags().BoolVar(&noBases, "no-bases", false, "releases alone")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		in := struct {
			Releases []string `json:"releases"`
			Bases    bool     `json:"bases"`
		}{[]string{}, !noBases}
		for _, name := range args[1:] {
			if strings.Count(name, ":") == 2 {
				name += ":" + *arch
			}
			in.Releases = append(in.Releases, name)
		}
		if len(args) == 1 {
			if in.Releases, err = c.allImages(cmd.Context()); err != nil {
				return err
			}
		}
		body, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("make request: %w", err)
		}
		b, err := c.export(cmd.Context(), args[0], body)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d releases, %d files\nsigned by %s\n\nNext, over there: nestctl image import %s --key %s\n",
			args[0], len(b.Manifests), len(b.Files), b.Key, word(filepath.Base(args[0])), b.Key)
		return err
	}
	return cmd
}

func (c *client) allImages(ctx context.Context) ([]string, error) {
	var answer struct {
		Images []image `json:"images"`
	}
	if err := c.get(ctx, "/images", &answer); err != nil {
		return nil, err
	}
	ids := []string{}
	for _, i := range answer.Images {
		ids = append(ids, i.ID)
	}
	return ids, nil
}

// export writes a bundle to a file, reads it again and verifies it, and only then
// gives it its name.
func (c *client) export(ctx context.Context, to string, body []byte) (*bundle.Reader, error) {
	res, err := c.do(ctx, request{method: http.MethodPost, path: "/images/export", accept: "application/x-tar", body: body})
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // it has been read
	f, err := renameio.NewPendingFile(to, renameio.WithTempDir(filepath.Dir(to)), renameio.WithStaticPermissions(0o644))
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", to, err)
	}
	defer func() { _ = f.Cleanup() }() // after the replacement it does nothing
	if _, err := io.Copy(f, res.Body); err != nil {
		return nil, fmt.Errorf("write %s: %w", to, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("verify %s: %w", to, err)
	}
	b, err := verifyBundle(f.File)
	if err != nil {
		return nil, fmt.Errorf("bootd did not write the bundle to its end, its log says why: %w", err)
	}
	return b, f.CloseAtomicallyReplace()
}

// verifyBundle reads a bundle to its end, whoever signed it.
func verifyBundle(r io.Reader) (*bundle.Reader, error) {
	b, err := bundle.Read(bufio.NewReader(r), func(string) bool { return true })
	if err != nil {
		return nil, err
	}
	for {
		_, err := b.Next(func(bundle.File) (io.WriteCloser, error) { return discard{}, nil })
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// discard is io.Discard that can be closed.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

// imported is what an import has brought.
type imported struct {
	Imported struct {
		Key      string   `json:"key"`
		Releases []string `json:"releases"`
		Bases    []string `json:"bases"`
	} `json:"imported"`
}

func imageImport(socket *string) *cobra.Command {
	var key string
	force := false
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Take releases and base binaries out of a bundle of another bootd", Args: cobra.ExactArgs(1),
		Long: "Take releases and base binaries out of a file that nestctl image export has written. The whole file is\n" +
			"verified before anything of it can be seen: its signature, against the fingerprint in --key or one of\n" +
			"downloads.bundle_keys in bootd.yaml, and every file in it.",
		Example: "  nestctl image import bundle.tar --key 6b3a…",
	}
	output := outputFlag(cmd)
	cmd.Flags().StringVar(&key, "key", "", "`FINGERPRINT` of the key that signed it, as nestctl image export has printed it")
	cmd.Flags().BoolVar(&force, "force", false, "take older versions than were here")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // it was only read
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		path := "/images/import?" + url.Values{"key": {strings.ToLower(key)}, "force": {fmt.Sprint(force)}}.Encode()
		res, err := c.do(cmd.Context(), request{method: http.MethodPost, path: path, accept: "application/json", stream: f})
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }() // it has been read
		raw, err := readAll("bootd's answer", res.Body, 1<<20)
		if err != nil {
			return err
		}
		return output.print(cmd.OutOrStdout(), raw, func() error {
			var a imported
			if err := json.Unmarshal(raw, &a); err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
			return printImported(cmd.OutOrStdout(), a)
		})
	}
	return cmd
}

func printImported(w io.Writer, a imported) error {
	for _, id := range a.Imported.Releases {
		if _, err := fmt.Fprintln(w, "release", printable(id)); err != nil {
			return err
		}
	}
	for _, folder := range a.Imported.Bases {
		if _, err := fmt.Fprintln(w, "base   ", printable(folder)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "signed by %s\n\nNext: name a release in images of bootd.yaml, and reload bootd, which takes over new binaries too.\n", a.Imported.Key)
	return err
}
