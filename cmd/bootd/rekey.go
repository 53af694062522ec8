package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/nestboot/nestboot/pki/vault"
)

func rekeyCommand(path *string) *cobra.Command {
	var next Keys
	cmd := &cobra.Command{
		Use:   "rekey (--passphrase-file FILE | --credential NAME | --age-identity FILE)",
		Short: "Change the key with which private files are encrypted",
		Long: "Change the key-encryption key from the one that the configuration names to another. The private\n" +
			"files stay as they are: they are encrypted with a key of their own, and that one is encrypted anew.\n" +
			"So whoever has the former key and an old copy of vault.age can still read them.\n\n" +
			"A bootd that runs is not disturbed, and does not warn. Its next start needs the new key, so set\n" +
			"keys in the configuration to it, and look with bootd check-config.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(*path)
			if err != nil {
				return err
			}
			v, err := vault.Open(cfg.StateDir, cfg.Keys.kek())
			if err != nil {
				return err
			}
			for _, file := range []*string{&next.PassphraseFile, &next.AgeIdentity} {
				if *file == "" {
					continue
				}
				if *file, err = filepath.Abs(*file); err != nil {
					return fmt.Errorf("find the next key: %w", err)
				}
			}
			if err := v.Rewrap(next.kek()); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "done; now set in %s: %s\n", *path, next.setting())
			return err
		},
	}
	cmd.Flags().StringVar(&next.PassphraseFile, "passphrase-file", "", "`FILE` with the next passphrase or age identity")
	cmd.Flags().StringVar(&next.Credential, "credential", "", "`NAME` of the next systemd credential")
	cmd.Flags().StringVar(&next.AgeIdentity, "age-identity", "", "`FILE` with the next age identity")
	return cmd
}

// setting is how the configuration names the key.
func (k Keys) setting() string {
	switch {
	case k.Credential != "":
		return fmt.Sprintf("keys: {credential: %q}", k.Credential)
	case k.AgeIdentity != "":
		return fmt.Sprintf("keys: {age_identity: %q}", k.AgeIdentity)
	}
	return fmt.Sprintf("keys: {passphrase_file: %q}", k.PassphraseFile)
}
