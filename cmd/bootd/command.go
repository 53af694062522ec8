package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/nestboot/nestboot/images/depot"
	"github.com/nestboot/nestboot/pki/serving"
)

const defaultConfig = "/etc/nestboot/bootd.yaml"

// command is bootd's command line.
func command() *cobra.Command {
	var path string
	var dev bool
	root := &cobra.Command{
		Use:   "bootd",
		Short: "Boot bare-metal machines over the network",
		Long: "bootd answers firmware over TFTP and HTTP, proves by client certificate who asks,\n" +
			"and gives each machine its boot script, its image and its own Ignition config.\n\n" +
			"SIGTERM and SIGINT stop it after running transfers have ended; SIGHUP reads the\n" +
			"configuration again and takes over images, machines, the Butane file and the binaries\n" +
			"of artifacts.bases.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%q is not a command: bootd takes check-config, rekey, version or none; name the configuration with --config", args[0])
			}
			return nil
		},
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd.Context(), options{config: path, dev: dev, stderr: os.Stderr})
		},
	}
	root.PersistentFlags().StringVarP(&path, "config", "c", defaultConfig, "configuration `file`")
	root.Flags().BoolVar(&dev, "dev", false, "development: ports 6969, 8080, 8443 and 9091 of 127.0.0.1, and state in a temporary directory that is removed at the end")
	root.AddCommand(checkCommand(&path), rekeyCommand(&path), versionCommand())
	return root
}

func checkCommand(path *string) *cobra.Command {
	return &cobra.Command{
		Use:   "check-config",
		Short: "Check the configuration and the files that it names; change nothing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(*path)
			if err != nil {
				return err
			}
			if err := checkFiles(cmd.Context(), cfg, newLogger(cfg.Log, cmd.ErrOrStderr())); err != nil {
				return fmt.Errorf("%s: %w", *path, err)
			}
			for _, w := range serving.Warnings(serverFiles(cfg.Certificates), time.Now()) {
				if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", w); err != nil {
					return fmt.Errorf("print: %w", err)
				}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", *path)
			return err
		},
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "bootd", version())
			return err
		},
	}
}

// version is the module's version as the build recorded it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// loadConfig reads, completes and checks the configuration file. The error
// holds one line per fault.
func loadConfig(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w (name another file with --config; docs/bootd.yaml is an example)", err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	var cfg Config
	err = decodeStrict(data, &cfg)
	cfg = cfg.withDefaults(dir)
	if !errors.Is(err, errUnread) {
		err = errors.Join(err, cfg.Validate())
	}
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s:\n%w", path, err)
	}
	return cfg, nil
}

// checkFiles opens all that the configuration names, as a start would.
func checkFiles(ctx context.Context, cfg Config, log *slog.Logger) error {
	_, basesErr := readBases(ctx, cfg, log)
	var stock *depot.Depot
	if cfg.namesReleases() { // else nobody needs to see the state directory
		var err error
		if stock, err = openDepot(cfg, &inUse{}, log); err != nil {
			return err
		}
	}
	c, err := openCatalogue(ctx, cfg, stock, log)
	if err == nil {
		err = c.close()
	}
	_, systemsErr := loadSystems(cfg.Downloads.Systems)
	return errors.Join(basesErr, err, systemsErr, checkKeyFiles(cfg))
}
