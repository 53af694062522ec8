package vault

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/require"
)

// testCost is scrypt's cost in tests: as cheap as age allows.
const testCost = 1

const text = "-----BEGIN PRIVATE KEY-----\nthe canary\n-----END PRIVATE KEY-----\n"

func put(t *testing.T, path, data string, mode fs.FileMode) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(data), 0o600))
	require.NoError(t, os.Chmod(path, mode))
	return path
}

// stateDir is a directory that is this user's alone.
func stateDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	return dir
}

func passphrase(t *testing.T, pass string) KEK {
	t.Helper()
	return KEK{PassphraseFile: put(t, filepath.Join(t.TempDir(), "pass"), pass, 0o400)}
}

func ageIdentity(t *testing.T) KEK {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	return KEK{AgeIdentity: put(t, filepath.Join(t.TempDir(), "id"), "# created: today\n"+id.String()+"\n", 0o600)}
}

func credential(t *testing.T, content string) KEK {
	t.Helper()
	dir := stateDir(t)
	put(t, filepath.Join(dir, "nestboot-kek"), content, 0o440) // as an access list shows
	t.Setenv(credentialsEnv, dir)
	return KEK{Credential: "nestboot-kek"}
}

// keks are all ways to give a key-encryption key.
func keks(t *testing.T) map[string]KEK {
	t.Helper()
	hybrid, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	x, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	return map[string]KEK{
		"passphrase":            passphrase(t, "correct horse battery\n"),
		"identity as the file":  passphrase(t, x.String()+"\n"),
		"identity":              ageIdentity(t),
		"post-quantum identity": {AgeIdentity: put(t, filepath.Join(t.TempDir(), "id"), hybrid.String(), 0o600)},
		"credential":            credential(t, "correct horse battery"),
	}
}

func opened(t *testing.T, dir string, kek KEK) *Vault {
	t.Helper()
	v, err := open(dir, kek, testCost)
	require.NoError(t, err)
	return v
}

func refused(t *testing.T, dir string, kek KEK) string {
	t.Helper()
	_, err := open(dir, kek, testCost)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "horse", "a passphrase in an error")
	require.NotContains(t, err.Error(), agePrefix)
	return err.Error()
}

func TestT30_ClearWithoutKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	for name, v := range map[string]*Vault{"opened": opened(t, dir, KEK{}), "nil": nil} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "root.key")
			require.False(t, v.Sealed())
			require.NoError(t, v.Write(path, []byte(text)))
			raw, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, text, string(raw))
			got, err := v.Read(path)
			require.NoError(t, err)
			require.Equal(t, text, string(got))
			_, err = v.Read(filepath.Join(dir, "none"))
			require.ErrorIs(t, err, fs.ErrNotExist)
			_, err = v.Seal(dir)
			require.ErrorContains(t, err, "keys.passphrase_file")
			require.ErrorContains(t, v.Rewrap(KEK{Credential: "x"}), "not encrypted")
		})
	}
	require.NoFileExists(t, filepath.Join(dir, keyFile))
}

func TestT30_EncryptedByEachKindOfKey(t *testing.T) {
	for name, kek := range keks(t) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			v := opened(t, dir, kek)
			require.True(t, v.Sealed())
			path := filepath.Join(dir, "root.key")
			require.NoError(t, v.Write(path, []byte(text)))
			for _, file := range []string{path, filepath.Join(dir, keyFile)} {
				raw, err := os.ReadFile(file)
				require.NoError(t, err)
				require.True(t, encryptedForm(raw), file)
				require.NotContains(t, string(raw), "canary")
				st, err := os.Stat(file)
				require.NoError(t, err)
				require.Equal(t, fs.FileMode(0o600), st.Mode())
			}
			again := opened(t, dir, kek)
			got, err := again.Read(path)
			require.NoError(t, err)
			require.Equal(t, text, string(got))
			require.Contains(t, refused(t, dir, KEK{}), "no key is configured: set keys.passphrase_file")
			require.Contains(t, refused(t, dir, passphrase(t, "another horse battery")), "does not open "+filepath.Join(dir, keyFile))
			require.Contains(t, refused(t, dir, ageIdentity(t)), "keys.age_identity")
		})
	}
}

// TestDecryptsByHand: what the package comment says about age's own tool.
func TestDecryptsByHand(t *testing.T) {
	dir := stateDir(t)
	kek := passphrase(t, "correct horse battery")
	v := opened(t, dir, kek)
	require.NoError(t, v.Write(filepath.Join(dir, "root.key"), []byte(text)))
	pass, err := age.NewScryptIdentity("correct horse battery")
	require.NoError(t, err)
	raw, err := os.ReadFile(filepath.Join(dir, keyFile))
	require.NoError(t, err)
	key, err := decrypt(raw, pass)
	require.NoError(t, err)
	ids, err := age.ParseIdentities(bytes.NewReader(key))
	require.NoError(t, err)
	raw, err = os.ReadFile(filepath.Join(dir, "root.key"))
	require.NoError(t, err)
	got, err := decrypt(raw, ids...)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
}

func TestVaultKeyMissing(t *testing.T) {
	dir := stateDir(t)
	kek := ageIdentity(t)
	v := opened(t, dir, kek)
	key := filepath.Join(dir, "pki", "root.key")
	require.NoError(t, os.Mkdir(filepath.Dir(key), 0o700))
	require.NoError(t, v.Write(key, []byte(text)))
	path := filepath.Join(dir, keyFile)
	saved, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))

	require.Contains(t, refused(t, dir, kek), path+" is missing, and "+key+" is encrypted with the key in it: restore it from a backup")
	require.NoFileExists(t, path)
	plain := opened(t, dir, KEK{})
	_, err = plain.Read(key)
	require.ErrorContains(t, err, key+" is encrypted, and no key is configured")

	require.NoError(t, os.Remove(key))
	other := opened(t, dir, kek) // nothing is lost: a new one
	require.NoError(t, os.WriteFile(path, saved, 0o600))
	v = opened(t, dir, kek)
	require.NoError(t, other.Write(key, []byte(text)))
	_, err = v.Read(key)
	require.ErrorContains(t, err, "encrypted with another key than that in "+path)
}

// TestDamagedFiles cuts and flips at each byte: nothing damaged is ever taken
// for content.
func TestDamagedFiles(t *testing.T) {
	dir := stateDir(t)
	kek := ageIdentity(t)
	v := opened(t, dir, kek)
	key := filepath.Join(dir, "root.key")
	require.NoError(t, v.Write(key, []byte(text)))
	for _, path := range []string{key, filepath.Join(dir, keyFile)} {
		whole, err := os.ReadFile(path)
		require.NoError(t, err)
		for at := range whole {
			cut := whole[:at]
			flipped := bytes.Clone(whole)
			flipped[at] ^= 1
			for how, bad := range map[string][]byte{"cut": cut, "flipped": flipped} {
				require.NoError(t, os.WriteFile(path, bad, 0o600))
				var err error
				var got []byte
				if path == key {
					got, err = v.Read(key)
				} else {
					_, err = open(dir, kek, testCost)
				}
				if err == nil { // the first bytes are gone: the owner finds no PEM in it
					require.Equal(t, bad, got, "%s at %d", how, at)
					require.Less(t, at, len(header))
					require.Equal(t, key, path)
					continue
				}
				require.ErrorContains(t, err, path, "%s at %d", how, at)
			}
		}
		require.NoError(t, os.WriteFile(path, whole, 0o600))
	}
	got, err := v.Read(key)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
}

func TestT30_OpenToOthers(t *testing.T) {
	dir := stateDir(t)
	v := opened(t, dir, ageIdentity(t))
	key := filepath.Join(dir, "root.key")
	require.NoError(t, v.Write(key, []byte(text)))
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o601, 0o622} {
		require.NoError(t, os.Chmod(key, mode))
		_, err := v.Read(key)
		require.ErrorContains(t, err, "open to others")
		require.ErrorContains(t, err, "run: chmod 0600 "+key)
	}
	require.NoError(t, v.Write(key, []byte(text)), "replaced, so private again")
	require.NoError(t, Private(key, 0o600))
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chown(key, 12345, -1))
		_, err := v.Read(key)
		require.ErrorContains(t, err, "belongs to user 12345")
		require.ErrorContains(t, err, "chown -R 0 "+key)
	}
	require.NoError(t, os.Chmod(dir, 0o755))
	require.Contains(t, refused(t, dir, KEK{}), "chmod 0700 "+dir)
	file := put(t, filepath.Join(t.TempDir(), "f"), "", 0o600)
	require.Error(t, Dir(file))
	require.ErrorIs(t, Private(filepath.Join(t.TempDir(), "none"), 0o600), fs.ErrNotExist)
}

func TestBounds(t *testing.T) {
	dir := stateDir(t)
	v := opened(t, dir, ageIdentity(t))
	path := filepath.Join(dir, "big.key")
	most := bytes.Repeat([]byte("x"), maxFile)
	require.NoError(t, v.Write(path, most))
	got, err := v.Read(path)
	require.NoError(t, err)
	require.Equal(t, most, got)
	require.ErrorContains(t, v.Write(path, append(most, 'x')), "at most 1048576")
	require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte("x"), 2*maxFile), 0o600))
	_, err = v.Read(path)
	require.ErrorContains(t, err, "larger than")
	require.ErrorContains(t, v.Write(filepath.Join(dir, "no", "x.key"), nil), "no/x.key")
}

// TestConcurrentUse: readers see one whole version or another while it is
// written.
func TestConcurrentUse(t *testing.T) {
	dir := stateDir(t)
	v := opened(t, dir, ageIdentity(t))
	path := filepath.Join(dir, "a.key")
	require.NoError(t, v.Write(path, []byte(strings.Repeat("0", 999))))
	var both sync.WaitGroup
	for _, c := range "1234" {
		both.Go(func() {
			for range 20 {
				if err := v.Write(path, []byte(strings.Repeat(string(c), 999))); err != nil {
					t.Error(err)
				}
				got, err := v.Read(path)
				if err != nil || len(got) != 999 || strings.Trim(string(got), string(got[:1])) != "" {
					t.Errorf("half a file: %v", err)
				}
			}
		})
	}
	both.Wait()
}
