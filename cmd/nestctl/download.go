package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nestboot/nestboot/ipxebuild"
)

func artifactDownload(socket *string) *cobra.Command {
	var to string
	var force bool
	cmd := onSet(socket, &cobra.Command{
		Use: "download NAME [FORMAT|FILE]", Short: "Save a file of a set", Args: cobra.RangeArgs(1, 2),
		Long: "Save one file of a set, by its format or its name; without either, the image for CD and USB stick.\n" +
			"Formats: iso, pxe (BIOS network boot), efi_amd64, efi_arm64, raw_amd64 (disk), ipxe-chain (script).\n" +
			"It comes over bootd's admin socket, so it needs no exposure. A file with a private key inside gets\n" +
			"mode 0600; a download that breaks off leaves nothing behind. A PATH that is a device is written to,\n" +
			"unless it is in use; a file that is there is replaced with --force alone.",
		Example: "  nestctl artifact download rack1                    # ./rack1.iso\n" +
			"  nestctl artifact download rack1 -o /dev/sdX        # a stick: all that was on it is lost\n" +
			"  nestctl artifact download rack1 efi_amd64 -o /media/usb/EFI/BOOT/BOOTX64.EFI",
	}, func(cmd *cobra.Command, c *client, s set, args []string) error {
		want := string(ipxebuild.FormatISO)
		if len(args) > 1 {
			want = args[1]
		}
		if err := noFormat(to); err != nil {
			return err
		}
		f, err := s.file(want)
		if err != nil {
			return err
		}
		data, err := c.download(cmd.Context(), setPath(s)+"/files/"+f.Name)
		if err != nil {
			return fmt.Errorf("download %s: %w", f.Name, err)
		}
		if to == "-" || to == "/dev/stdout" { // nothing but the file
			_, err := cmd.OutOrStdout().Write(data)
			return err
		}
		saved, err := save(to, f, data, force)
		if err != nil {
			return err
		}
		note := ""
		if f.HoldsKey {
			note = "; it holds a private key: keep it to yourself"
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d bytes%s\n", saved, len(data), note)
		return err
	})
	cmd.Flags().BoolVar(&force, "force", false, "replace a file that is there")
	cmd.Flags().StringVarP(&to, "output", "o", "", "`PATH` of a file, folder or device, - for standard output (default: the file's name, here)")
	return cmd
}

// noFormat refuses what is a format with other commands' -o, and here would
// become the name of a file with a private key in it.
func noFormat(path string) error {
	if path == "json" || path == "yaml" || path == "table" {
		return fmt.Errorf("-o names a file here, not a format; for a file of that name: -o ./%s", path)
	}
	return nil
}

// file finds a file by its name or by a format that has just one.
func (s set) file(want string) (setFile, error) {
	var found []setFile
	var names []string
	for _, f := range s.Files {
		if f.Name == want {
			return f, nil
		}
		if string(f.Format) == want {
			found = append(found, f)
			names = append(names, f.Name)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		for _, m := range s.Missing {
			if strings.Contains(m, want) {
				return setFile{}, fmt.Errorf("set %s has no %s: %s", s.Name, want, m)
			}
		}
		return setFile{}, fmt.Errorf("set %s has no file or format %q: nestctl artifact show %s lists them", s.Name, want, s.Name)
	}
	return setFile{}, fmt.Errorf("%s is several files; name one of %s", want, strings.Join(names, ", "))
}

// maxDownload is beyond any file of a set.
const maxDownload = 256 << 20

// bytes reads an answer that is no JSON, of at most limit bytes.
func (c *client) bytes(ctx context.Context, path string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.do(ctx, request{method: http.MethodGet, path: path, accept: "*/*"})
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // it has been read
	return readAll("bootd's answer", res.Body, limit)
}

// download reads a whole file and compares it with the digest that came with
// it.
func (c *client) download(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.do(ctx, request{method: http.MethodGet, path: path, accept: "*/*"})
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // it has been read
	data, err := io.ReadAll(io.LimitReader(res.Body, maxDownload+1))
	if err != nil {
		return nil, fmt.Errorf("it broke off: %w", err)
	}
	sum := sha256.Sum256(data)
	if etag := res.Header.Get("ETag"); etag != `"`+hex.EncodeToString(sum[:])+`"` {
		return nil, fmt.Errorf("it is not what bootd sent: %d bytes that do not match %s", len(data), etag)
	}
	return data, nil
}
