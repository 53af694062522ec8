package pki

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const day = 24 * time.Hour

// TestServerCertificateAtOpen says when the stored one is taken up.
func TestServerCertificateAtOpen(t *testing.T) {
	remove := func(name string) func(*testing.T, *Config, *clock) {
		return func(t *testing.T, cfg *Config, _ *clock) {
			require.NoError(t, os.Remove(filepath.Join(cfg.Dir, name)))
		}
	}
	tests := []struct {
		name   string
		change func(*testing.T, *Config, *clock)
		kept   bool
	}{
		{"nothing changed", func(*testing.T, *Config, *clock) {}, true},
		{"names in another order", func(_ *testing.T, cfg *Config, _ *clock) {
			cfg.Hosts = []string{"BOOT.example.net", "ipxe.example.net", "boot.example.net"}
			cfg.Addrs = []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:192.0.2.1")}
		}, true},
		{"a day before renewal", func(_ *testing.T, _ *Config, c *clock) { c.Add(59 * day) }, true},
		{"our clock fell back", func(_ *testing.T, _ *Config, c *clock) { c.Add(-100 * day) }, true},
		{"renewal is due", func(_ *testing.T, _ *Config, c *clock) { c.Add(60 * day) }, false},
		{"expired", func(_ *testing.T, _ *Config, c *clock) { c.Add(91 * day) }, false},
		{"another host", func(_ *testing.T, cfg *Config, _ *clock) { cfg.Hosts = append(cfg.Hosts, "app.example.net") }, false},
		{"one address less", func(_ *testing.T, cfg *Config, _ *clock) { cfg.Addrs = cfg.Addrs[:1] }, false},
		{"key lost", remove("server.key"), false},
		{"certificate lost", remove("server.pem"), false},
		{"certificate garbled", func(t *testing.T, cfg *Config, _ *clock) {
			require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, "server.pem"), nil, 0o600))
		}, false},
		{"renewal cut short between key and certificate", func(t *testing.T, cfg *Config, _ *clock) {
			key, err := newKey()
			require.NoError(t, err)
			require.NoError(t, keyDir{dir: cfg.Dir}.writeKey("server", key))
		}, false},
		{"issued by another intermediate", func(t *testing.T, cfg *Config, _ *clock) {
			ca, err := keyDir{dir: cfg.Dir}.readPair("intermediate")
			require.NoError(t, err)
			require.NoError(t, keyDir{dir: cfg.Dir}.writeKey("server", ca.key))
			require.NoError(t, keyDir{dir: cfg.Dir}.writeCerts("server", ca.cert))
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, c := testConfig(t)
			before := openAuthority(t, cfg).ServerCertificate()
			tt.change(t, &cfg, c)
			after := openAuthority(t, cfg).ServerCertificate()
			require.Equal(t, tt.kept, before.Leaf.Equal(after.Leaf))
			require.True(t, c.Now().Before(after.Leaf.NotAfter))
			stored, err := keyDir{dir: cfg.Dir}.readPair("server")
			require.NoError(t, err)
			require.True(t, stored.cert.Equal(after.Leaf))
		})
	}
}

// TestRunRenewsInPlace has the certificate renewed while the store takes no
// writes: machines must go on booting.
func TestRunRenewsInPlace(t *testing.T) {
	cfg, c := testConfig(t)
	book := newLogbook()
	cfg.Log = book.logger()
	a := openAuthority(t, cfg)
	before := a.ServerCertificate()
	require.Contains(t, <-book.lines, "root is recorded")
	require.NoError(t, cfg.Store.Close())
	c.Add(60 * day)

	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- a.Run(ctx) }()
	require.Contains(t, <-book.lines, "server certificate issued")
	stop()
	require.NoError(t, <-ended)
	after := a.ServerCertificate()
	require.Equal(t, c.Now().Add(90*day), after.Leaf.NotAfter)
	require.NotEqual(t, before.Leaf.PublicKey, after.Leaf.PublicKey)
	require.NotContains(t, book.String(), "PRIVATE")
}

func TestRenewIfDueSaysWhenToAskAgain(t *testing.T) {
	cfg, c := testConfig(t)
	a := openAuthority(t, cfg)
	wait, err := a.renewIfDue(t.Context())
	require.NoError(t, err)
	require.Equal(t, time.Hour, wait)
	c.Add(60*day - time.Minute)
	wait, err = a.renewIfDue(t.Context())
	require.NoError(t, err)
	require.Equal(t, time.Minute, wait)

	c.Add(time.Minute)
	require.NoError(t, os.RemoveAll(cfg.Dir))
	_, err = a.renewIfDue(t.Context())
	require.ErrorContains(t, err, "write ")
}

func TestRepeatBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		book := newLogbook()
		began := time.Now()
		var at []time.Duration
		repeat(ctx, book.logger(), "server certificate", func(context.Context) (time.Duration, error) {
			at = append(at, time.Since(began))
			switch len(at) {
			case 9:
				return 5 * time.Hour, nil
			case 11:
				stop()
			}
			return 0, errors.New("disk full")
		})
		m, h := time.Minute, time.Hour
		require.Equal(t, []time.Duration{
			0, m, 3 * m, 7 * m, 15 * m, 31 * m, 63 * m, 63*m + h, 63*m + 2*h, // 1, 2, 4 … 60 minutes
			63*m + 7*h, // as it asked
			64*m + 7*h, // and from the beginning
		}, at)
		require.Contains(t, book.String(), "disk full")
	})
}
