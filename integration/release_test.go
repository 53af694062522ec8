package integration

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/mirror"
	"github.com/nestboot/nestboot/integration/rig"
)

// TestDescribedSystemBoots boots a system that nothing but a description knows:
// the lab's kernel and initrd, pulled from a folder with a signed list of digests,
// named in bootd.yaml as a release, and booted by real firmware.
func TestDescribedSystemBoots(t *testing.T) {
	r := newRig(t, rig.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	s := r.Server
	system := describeLab(t, filepath.Join(s.Dir, "mirror"), r.Guest.Kernel, r.Guest.Initrd)
	require.NoError(t, os.WriteFile(filepath.Join(s.Dir, "debian-lab.yaml"), []byte(system), 0o600))
	config := filepath.Join(s.Dir, "bootd.yaml")
	text, err := os.ReadFile(config)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(text), "images:\n")
	require.True(t, found)
	_, after, found := strings.Cut(rest, "butane:")
	require.True(t, found)
	text = []byte(before + "downloads: {systems: [debian-lab.yaml]}\nimages: [{name: lab, release: 'debian-lab:lab:20261121'}]\nbutane:" + after)
	require.NoError(t, os.WriteFile(config, text, 0o600))
	require.NoError(t, s.Proc.Stop(ctx))
	require.NoError(t, s.Start(ctx))

	out, err := s.Nestctl(ctx, "image", "pull", "debian-lab:lab:current", "--from", filepath.Join(s.Dir, "mirror"))
	require.NoError(t, err)
	require.Contains(t, string(out), "debian-lab:lab:20261121:x86_64")
	require.NoError(t, syscall.Kill(s.Proc.Pid(), syscall.SIGHUP))
	_, err = s.Proc.WaitFor(ctx, regexp.MustCompile("configuration was reloaded"))
	require.NoError(t, err)
	twice(t, machines["pxe"], func(ctx context.Context, m lab.Machine) error { return bootsToTheEnd(ctx, r, m) })
}

// describeLab lays out a mirror of one release and returns its description.
func describeLab(t *testing.T, dir, kernel, initrd string) string {
	t.Helper()
	maker := mirror.NewMaker(t, time.Now().Add(-time.Hour), 0)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "20261121"), 0o700))
	write := func(name string, data []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	sums := ""
	for name, from := range map[string]string{"vmlinuz": kernel, "initrd.gz": initrd} {
		data, err := os.ReadFile(from)
		require.NoError(t, err)
		write("20261121/"+name, data)
		sums += fmt.Sprintf("%x  %s\n", sha256.Sum256(data), name)
	}
	write("20261121/SHA256SUMS", []byte(sums))
	write("20261121/SHA256SUMS.sign", maker.Sign([]byte(sums), time.Now()))
	write("latest", []byte("20261121\n"))
	write("keys.asc", maker.Keys())
	return `name: debian-lab
channels: [lab]
archs: {x86_64: amd64}
current: {file: latest, pattern: '(\d{8})'}
kernel: "{version}/vmlinuz"
initrds: ["{version}/initrd.gz"]
args: [` + strings.Join(strings.Fields(lab.GuestArgs), ", ") + `]
signature:
  kind: openpgp-digests
  lists: [{file: "{version}/SHA256SUMS", signature: "{version}/SHA256SUMS.sign"}]
  keys: keys.asc
  fingerprints: [` + maker.Fingerprint() + `]
`
}
