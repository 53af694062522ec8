package vault

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// former are files of an installation that had no key-encryption key, and
// whether they are private.
var former = map[string]bool{
	"pki/root.key":                 true,
	"pki/gen-2/root.key":           true,
	"pki/root.pem":                 false,
	"sets/rack1-1/client.pem":      true,
	"sets/token.secret":            true,
	"links.secret":                 true,
	"sets/.client.pem123456789":    true, // of a write that was interrupted
	"pki/.root.key42":              true,
	"x/.links.secret7":             true,
	"pki/notes.txt":                false,
	"bases/ipxe_1.21/snponly.efi1": false,
}

func contentOf(name string) string {
	if strings.HasSuffix(name, ".pem") && !strings.Contains(name, "client") {
		return "-----BEGIN CERTIFICATE-----\npublic\n-----END CERTIFICATE-----\n"
	}
	if strings.Contains(name, "notes") || strings.Contains(name, ".efi") {
		return "no secret"
	}
	return strings.ReplaceAll(text, "the canary", "the canary in "+name)
}

func formerState(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	opened(t, dir, KEK{})
	for name := range former {
		put(t, filepath.Join(dir, name), contentOf(name), 0o600)
	}
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(dir, "x.key")))
	return dir
}

// requireSealed checks every file below dir: each is there, reads as before and
// shows nothing.
func requireSealed(t *testing.T, dir string, v *Vault) {
	t.Helper()
	for name, private := range former {
		path := filepath.Join(dir, name)
		if strings.Contains(name, "/.") {
			require.NoFileExists(t, path)
			continue
		}
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, private, encryptedForm(raw), name)
		got, err := v.Read(path)
		require.NoError(t, err)
		require.Equal(t, contentOf(name), string(got))
	}
	require.Empty(t, canaries(t, dir))
}

// canaries lists the files that hold a private text in clear.
func canaries(t *testing.T, dir string) (found []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte("canary")) {
			found = append(found, path)
		}
		return err
	}))
	return found
}

func TestT30_SealEncryptsWhatIsInClear(t *testing.T) {
	dir := formerState(t)
	kek := ageIdentity(t)
	v := opened(t, dir, kek)
	got, err := v.Read(filepath.Join(dir, "pki/root.key"))
	require.NoError(t, err, "a file from before is read")
	require.Equal(t, contentOf("pki/root.key"), string(got))
	require.Len(t, canaries(t, dir), 8)

	inClear, err := v.Clear(dir)
	require.NoError(t, err)
	require.Len(t, inClear, 8)
	n, err := v.Seal(filepath.Join(dir, "pki"), filepath.Join(dir, "sets"), filepath.Join(dir, "none"), filepath.Join(dir, "x", "links.secret"))
	require.NoError(t, err)
	require.Equal(t, 7, n)
	n, err = v.Seal(dir)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	n, err = v.Seal(dir)
	require.NoError(t, err)
	require.Zero(t, n)
	requireSealed(t, dir, opened(t, dir, kek))
}

func TestSealRefusesWhatOthersMayRead(t *testing.T) {
	dir := formerState(t)
	path := filepath.Join(dir, "pki/root.key")
	require.NoError(t, os.Chmod(path, 0o644))
	v := opened(t, dir, ageIdentity(t))
	_, err := v.Seal(dir)
	require.ErrorContains(t, err, "chmod 0600 "+path)
}

// TestT30_SealOutlivesKills ends a real process after each step of Seal: every
// file can be read afterwards, and the next Seal finishes.
func TestT30_SealOutlivesKills(t *testing.T) {
	const asked = "NESTBOOT_TEST_SEAL"
	if dir := os.Getenv(asked); dir != "" {
		v := opened(t, dir, KEK{AgeIdentity: os.Getenv(asked + "_ID")})
		v.steps = func(string) { os.Exit(7) }
		_, err := v.Seal(dir)
		require.NoError(t, err)
		return
	}
	dir := formerState(t)
	kek := ageIdentity(t)
	v := opened(t, dir, kek)
	for killed := 0; ; killed++ {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestT30_SealOutlivesKills$")
		cmd.Env = append(os.Environ(), asked+"="+dir, asked+"_ID="+kek.AgeIdentity)
		err := cmd.Run()
		for name := range former {
			if !strings.Contains(name, "/.") {
				got, err := v.Read(filepath.Join(dir, name))
				require.NoError(t, err)
				require.Equal(t, contentOf(name), string(got))
			}
		}
		if err == nil {
			require.Equal(t, 8, killed)
			break
		}
		require.Equal(t, 7, cmd.ProcessState.ExitCode())
		left, err := v.Clear(dir)
		require.NoError(t, err)
		require.Len(t, left, 7-killed)
	}
	requireSealed(t, dir, v)
}
