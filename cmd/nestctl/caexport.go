package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// maxExport is beyond any number of roots.
const maxExport = 1 << 20

func caExport(socket *string) *cobra.Command {
	var format, number, to string
	cmd := &cobra.Command{
		Use: "export", Short: "Save the root that machines must trust", Args: cobra.NoArgs,
		Long: "Save the root that machines must trust: for firmware's HTTPS Boot, for Ignition, for sets that are\n" +
			"made elsewhere (nestctl artifact build --root). It holds no secret.\n\n" +
			"  pem          text, for most programs\n" +
			"  der          binary, as firmware's setup menus take it (one root only)\n" +
			"  esl          EFI signature list (UEFI 2.10, 32.4.1), for firmware's variable TlsCaCertificate;\n" +
			"               QEMU: -fw_cfg name=etc/edk2/https/cacerts,file=FILE\n" +
			"  fingerprint  SHA-256 in hexadecimal, to compare by hand",
		Example: "  nestctl ca export > root.pem\n" +
			"  nestctl ca export --format esl -o cacerts.esl",
	}
	cmd.Flags().StringVar(&format, "format", "pem", "`FORMAT`: pem, der, esl or fingerprint")
	cmd.Flags().StringVar(&number, "generation", "", "`NUMBER` of the root, or all (default: the newest; all for esl)")
	cmd.Flags().StringVarP(&to, "output", "o", "-", "`FILE` to write")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := noFormat(to); err != nil {
			return err
		}
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		query := url.Values{"format": {format}}
		if number != "" {
			query.Set("generation", number)
		}
		data, err := c.bytes(cmd.Context(), "/authority/export?"+query.Encode(), maxExport)
		if err != nil {
			return err
		}
		return writeExport(cmd.OutOrStdout(), to, format, data)
	}
	return cmd
}

// writeExport writes what anybody may read.
func writeExport(stdout io.Writer, to, format string, data []byte) error {
	if to != "-" {
		if err := renameio.WriteFile(to, data, 0o644); err != nil {
			return fmt.Errorf("save %s: %w", to, err)
		}
		_, err := fmt.Fprintf(stdout, "%s: %d bytes\n", to, len(data))
		return err
	}
	if f, ok := stdout.(*os.File); ok && (format == "der" || format == "esl") && term.IsTerminal(int(f.Fd())) {
		return errors.New("it is binary and this is a terminal: name a file with -o")
	}
	_, err := stdout.Write(data)
	return err
}
