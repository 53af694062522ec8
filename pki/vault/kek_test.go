package vault

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKEKFaults(t *testing.T) {
	inDir := func(name, content string) string { return put(t, filepath.Join(t.TempDir(), name), content, 0o600) }
	open := put(t, filepath.Join(t.TempDir(), "pass"), "correct horse battery", 0o644)
	creds := t.TempDir()
	t.Setenv(credentialsEnv, creds)
	for name, c := range map[string]struct {
		kek  KEK
		want []string
	}{
		"two":             {KEK{PassphraseFile: "a", AgeIdentity: "b"}, []string{"passphrase_file and age_identity are set: leave one"}},
		"all and a path":  {KEK{"a", "b/c", "d"}, []string{"leave one of them", `keys.credential is "b/c"`}},
		"up":              {KEK{Credential: ".."}, []string{"not a path"}},
		"no file":         {KEK{PassphraseFile: "/nonexistent/pass"}, []string{"keys.passphrase_file /nonexistent/pass", "no such file"}},
		"open to others":  {KEK{PassphraseFile: open}, []string{"mode 0644", "chmod 0400 " + open}},
		"empty":           {KEK{PassphraseFile: inDir("p", "\n\n")}, []string{"has 0 bytes", "openssl rand -base64 32"}},
		"short":           {KEK{PassphraseFile: inDir("p", "hunter2\n")}, []string{"has 7 bytes"}},
		"too large":       {KEK{PassphraseFile: inDir("p", strings.Repeat("x", maxKEK+1))}, []string{"not a key"}},
		"damaged id":      {KEK{PassphraseFile: inDir("p", "AGE-SECRET-KEY-1QQQQ\n")}, []string{"holds no age identity", "age-keygen"}},
		"no id":           {KEK{AgeIdentity: inDir("i", "correct horse battery\n")}, []string{"holds no age identity"}},
		"empty id":        {KEK{AgeIdentity: inDir("i", "# nothing\n")}, []string{"no identities found"}},
		"no credential":   {KEK{Credential: "kek"}, []string{"keys.credential kek", filepath.Join(creds, "kek")}},
		"directory":       {KEK{PassphraseFile: creds}, []string{"keys.passphrase_file"}},
		"directory as id": {KEK{AgeIdentity: creds}, []string{"keys.age_identity"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			got := refused(t, dir, c.kek)
			for _, w := range c.want {
				require.Contains(t, got, w)
			}
			require.NotContains(t, got, "hunter2")
			require.EqualError(t, c.kek.Check(), strings.TrimPrefix(got, "private files: "))
			require.NoFileExists(t, filepath.Join(dir, keyFile))
		})
	}
	require.NoError(t, os.Unsetenv(credentialsEnv))
	require.Contains(t, refused(t, stateDir(t), KEK{Credential: "kek"}), "LoadCredentialEncrypted=kek")
}

func TestGoodKeysPassTheCheck(t *testing.T) {
	for name, kek := range keks(t) {
		require.NoError(t, kek.Check(), name)
	}
	require.NoError(t, KEK{}.Check())
}

func TestTrailingNewlinesDoNotCount(t *testing.T) {
	dir := stateDir(t)
	opened(t, dir, passphrase(t, "correct horse battery\r\n"))
	opened(t, dir, passphrase(t, "correct horse battery"))
	require.Contains(t, refused(t, dir, passphrase(t, " correct horse battery")), "does not open")
}

// TestScryptIsBounded: a vault.age that costs more than we ever ask for is
// refused, and what we ask for is within that.
func TestScryptIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("1 GiB of scrypt")
	}
	dir := stateDir(t)
	kek := passphrase(t, "correct horse battery")
	_, err := Open(dir, kek)
	require.NoError(t, err)
	_, err = Open(dir, kek)
	require.NoError(t, err)
	path := filepath.Join(dir, keyFile)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	dear := strings.Replace(string(data), " 17\n", " 21\n", 1)
	require.NotEqual(t, string(data), dear)
	require.NoError(t, os.WriteFile(path, []byte(dear), 0o600))
	_, err = Open(dir, kek)
	require.ErrorContains(t, err, "is damaged")
}

func TestRewrap(t *testing.T) {
	all := keks(t)
	for from, kek := range all {
		for to, next := range all {
			t.Run(from+" to "+to, func(t *testing.T) {
				dir := stateDir(t)
				path := filepath.Join(dir, "root.key")
				v := opened(t, dir, kek)
				require.NoError(t, v.Write(path, []byte(text)))
				before, err := os.ReadFile(path)
				require.NoError(t, err)
				require.NoError(t, v.Rewrap(next))
				after, err := os.ReadFile(path)
				require.NoError(t, err)
				require.Equal(t, before, after, "no other file changes")
				got, err := opened(t, dir, next).Read(path)
				require.NoError(t, err)
				require.Equal(t, text, string(got))
				if from != to && !(strings.Contains("passphrase credential", from) && strings.Contains("passphrase credential", to)) {
					require.Contains(t, refused(t, dir, kek), "does not open")
				}
			})
		}
	}
	dir := stateDir(t)
	v := opened(t, dir, all["identity"])
	require.ErrorContains(t, v.Rewrap(KEK{}), "the next key is required")
	require.ErrorContains(t, v.Rewrap(KEK{PassphraseFile: "a", Credential: "b"}), "leave one")
	require.ErrorContains(t, v.Rewrap(KEK{PassphraseFile: "/nonexistent"}), "no such file")
	opened(t, dir, all["identity"])
}
