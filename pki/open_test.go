package pki

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFirstStart(t *testing.T) {
	cfg, _ := testConfig(t)
	cfg.Dir = filepath.Join(t.TempDir(), "new", "pki")
	a := openAuthority(t, cfg)
	require.Contains(t, a.Root().Subject.CommonName, "nestboot boot root ")

	again := openAuthority(t, cfg)
	require.Equal(t, a.RootFingerprint(), again.RootFingerprint())
	require.Equal(t, a.ServerCertificate().Certificate, again.ServerCertificate().Certificate)
}

func TestFirstStartCutShort(t *testing.T) {
	files := issuerFiles()
	for n := range files {
		t.Run("before "+files[n], func(t *testing.T) {
			cfg, _ := testConfig(t)
			cfg.Dir = madeDir(t, files[:n]...)
			a := openAuthority(t, cfg)
			require.Equal(t, a.RootFingerprint(), openAuthority(t, cfg).RootFingerprint())
			made, err := firstStart()
			require.NoError(t, err)
			for _, kept := range files[:n] {
				now, err := os.ReadFile(filepath.Join(cfg.Dir, kept))
				require.NoError(t, err)
				require.Equal(t, made[kept], now, kept)
			}
		})
	}
}

// TestOpenRefuses damages a PKI that is in use. Each refusal names the file or
// the remedy, and nothing is made in place of what is missing.
func TestOpenRefuses(t *testing.T) {
	in := func(cfg Config, name string) string { return filepath.Join(cfg.Dir, name) }
	tests := []struct {
		name   string
		damage func(t *testing.T, cfg *Config) error
		want   []string
	}{
		{"root key lost", func(_ *testing.T, cfg *Config) error { return os.Remove(in(*cfg, "root.key")) }, []string{"root.key", "restore it from a backup"}},
		{"root lost", func(_ *testing.T, cfg *Config) error { return os.Remove(in(*cfg, "root.pem")) }, []string{"root.pem", "restore it from a backup"}},
		{"intermediate key lost", func(_ *testing.T, cfg *Config) error { return os.Remove(in(*cfg, "intermediate.key")) }, []string{"intermediate.key", "restore it from a backup"}},
		{"all lost", func(_ *testing.T, cfg *Config) error { return os.RemoveAll(cfg.Dir) }, []string{"root.key", "restore it from a backup"}},
		{"certificate garbled", func(_ *testing.T, cfg *Config) error { return os.WriteFile(in(*cfg, "root.pem"), []byte("x"), 0o600) }, []string{"root.pem", "restore it from a backup"}},
		{"key garbled", func(_ *testing.T, cfg *Config) error {
			return os.WriteFile(in(*cfg, "intermediate.key"), []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0o600)
		}, []string{"parse", "intermediate.key"}},
		{"key of another certificate", func(_ *testing.T, cfg *Config) error {
			return os.Rename(in(*cfg, "server.key"), in(*cfg, "intermediate.key"))
		}, []string{"does not belong to", "same backup"}},
		{"intermediate of another root", func(t *testing.T, cfg *Config) error {
			require.NoError(t, os.Mkdir(cfg.Dir+"-2", 0o700))
			_, err := plainDir(cfg.Dir+"-2").ensureIssuers(1, start)
			require.NoError(t, err)
			require.NoError(t, os.Rename(cfg.Dir+"-2/intermediate.key", in(*cfg, "intermediate.key")))
			return os.Rename(cfg.Dir+"-2/intermediate.pem", in(*cfg, "intermediate.pem"))
		}, []string{"was not issued by root.pem"}},
		{"directory of another state", func(t *testing.T, cfg *Config) error {
			cfg.Dir = filepath.Join(t.TempDir(), "other")
			require.NoError(t, os.Mkdir(cfg.Dir, 0o700))
			_, err := plainDir(cfg.Dir).ensureIssuers(1, start)
			return err
		}, []string{"machines were enrolled under", "restore the directory"}},
		{"open directory", func(_ *testing.T, cfg *Config) error { return os.Chmod(cfg.Dir, 0o750) }, []string{"mode 0750", "chmod 0700 "}},
		{"open key", func(_ *testing.T, cfg *Config) error { return os.Chmod(in(*cfg, "root.key"), 0o604) }, []string{"mode 0604", "chmod 0600 ", "root.key"}},
		{"directory of another user", func(t *testing.T, cfg *Config) error {
			if os.Geteuid() != 0 {
				t.Skip("only root can give a directory away")
			}
			return os.Chown(cfg.Dir, 12345, -1)
		}, []string{"belongs to user 12345", "chown -R 0 "}},
		{"no directory", func(_ *testing.T, cfg *Config) error { cfg.Dir = ""; return nil }, []string{"a directory for keys is required"}},
		{"no store", func(_ *testing.T, cfg *Config) error { cfg.Store = nil; return nil }, []string{"a store is required"}},
		{"no names", func(_ *testing.T, cfg *Config) error { cfg.Hosts, cfg.Addrs = nil, nil; return nil }, []string{"a host name or an address"}},
		{"address as a name", func(_ *testing.T, cfg *Config) error { cfg.Hosts = []string{"192.0.2.1"}; return nil }, []string{`"192.0.2.1"`}},
		{"closed store", func(_ *testing.T, cfg *Config) error { return cfg.Store.Close() }, []string{"state is unavailable"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, _ := testConfig(t)
			openAuthority(t, cfg)
			require.NoError(t, tt.damage(t, &cfg))
			before := listing(t, cfg.Dir)
			_, err := Open(t.Context(), cfg)
			require.ErrorContains(t, err, "boot pki: ")
			for _, want := range tt.want {
				require.ErrorContains(t, err, want)
			}
			if tt.name != "all lost" { // the empty directory is made
				require.Equal(t, before, listing(t, cfg.Dir))
			}
		})
	}
}

func listing(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestFirstStartRefuses(t *testing.T) {
	t.Run("a hole in the files", func(t *testing.T) {
		cfg, _ := testConfig(t)
		cfg.Dir = madeDir(t, "root.key", "intermediate.key")
		_, err := Open(t.Context(), cfg)
		require.ErrorContains(t, err, "root.pem is missing while intermediate.key is there")
	})
	t.Run("a clock that was never set", func(t *testing.T) {
		cfg, c := testConfig(t)
		cfg.Dir = madeDir(t)
		c.Add(-56 * 365 * 24 * time.Hour)
		_, err := Open(t.Context(), cfg)
		require.ErrorContains(t, err, "the clock says 1970")
	})
}
