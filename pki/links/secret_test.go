package links

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/vault"
)

// forms are all that a secret may look like.
func forms(s pki.Secret) [][]byte {
	b := s.Reveal()
	return [][]byte{b, []byte(s.Encode()), []byte(hex.EncodeToString(b)), []byte(base64.StdEncoding.EncodeToString(b))[:43]}
}

// TestT19_TokensAreNowhere takes links through a whole life and looks for their
// tokens in everything that leaves the package, and on the disk.
func TestT19_TokensAreNowhere(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	secrets := []pki.Secret{l.secret}
	var out bytes.Buffer
	say := func(v ...any) {
		for _, x := range v {
			fmt.Fprintf(&out, "%v %+v %#v %s %q %x\n", x, x, x, x, x, x)
			out.WriteString(text(t, x))
		}
	}
	for _, spec := range []Spec{
		{Kind: Chain, Name: "a"}, {Kind: Chain, Name: "b", ExpiresAt: later(time.Hour)}, {Kind: UEFI, Name: "a", Set: 1, Protocols: []string{HTTP}},
	} {
		link, token := create(t, l, spec)
		secret := l.Token(link)
		secrets = append(secrets, secret)
		l.Used(link.Kind, link.ID, uuidA, start)
		for _, over := range []string{HTTPS, HTTP} {
			for _, at := range []time.Time{start, start.Add(2 * time.Hour)} {
				id, found, err := l.Find(link.Kind, token, over, at)
				say(link, id, found, err, l.Explain(token, at), l.Good(id, at), l.List(link.Kind), secret)
			}
		}
		_, _, err := l.Find(Chain, token+"x", HTTPS, start)
		say(err, l.Explain(token+"x", start))
		_, err = l.Create(t.Context(), spec)
		say(err)
	}
	_, err := l.Revoke(t.Context(), Chain, 1)
	require.NoError(t, err)
	_, _, err = l.Find(Chain, secrets[1].Encode(), HTTPS, start)
	say(err, l.List(Chain))
	l.flush(t.Context())
	l.sweep(t.Context())
	w.reopen(enough)
	w.open()
	out.WriteString(w.logged())
	require.NoError(t, filepath.WalkDir(filepath.Join(w.dir, "store"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		out.Write(bytes.TrimRight(data, "\x00")) // etcd's log is 64 MiB of nothing
		return err
	}))
	require.Contains(t, out.String(), `"nonce":"`, "the store's file was read")
	for n, s := range secrets {
		for _, form := range forms(s) {
			require.False(t, bytes.Contains(out.Bytes(), form), "secret %d in the form %.8q…", n, form)
		}
	}
	file, err := os.ReadFile(filepath.Join(w.dir, "links.secret"))
	require.NoError(t, err)
	require.Equal(t, secrets[0].Encode(), string(file), "this test would find it")
}

// TestT30_SecretIsEncrypted: with a key-encryption key no file holds the secret
// in clear.
func TestT30_SecretIsEncrypted(t *testing.T) {
	w := newWorld(t)
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	kek := filepath.Join(t.TempDir(), "kek")
	require.NoError(t, os.WriteFile(kek, []byte(id.String()+"\n"), 0o600))
	require.NoError(t, os.Chmod(w.dir, 0o700))
	w.vault, err = vault.Open(w.dir, vault.KEK{AgeIdentity: kek})
	require.NoError(t, err)
	l := w.open()
	_, token := create(t, l, Spec{Kind: Chain, Name: "a"})
	secret := l.secret
	w.reopen(enough)
	l = w.open()
	require.True(t, secret.Equal(l.secret))
	require.Equal(t, token, l.Token(l.List(Chain)[0]).Encode())
	file, err := os.ReadFile(filepath.Join(w.dir, "links.secret"))
	require.NoError(t, err)
	for _, form := range forms(secret) {
		require.NotContains(t, string(file), string(form))
	}
	w.vault = nil
	_, err = Open(t.Context(), w.config())
	require.ErrorContains(t, err, "is encrypted, and no key is configured")
}

func TestSecretFile(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(w.dir, "links.secret")
	l := w.open()
	_, token := create(t, l, Spec{Kind: Chain, Name: "a"})
	create(t, l, Spec{Kind: Chain, Name: "revoked"})
	_, err := l.Revoke(t.Context(), Chain, 2)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode())
	whole, err := os.ReadFile(path)
	require.NoError(t, err)

	t.Run("open to others", func(t *testing.T) {
		require.NoError(t, os.Chmod(path, 0o644))
		_, err := Open(t.Context(), w.config())
		require.ErrorContains(t, err, "chmod 0600 "+path)
		require.NoError(t, os.Chmod(path, 0o600))
	})
	t.Run("damaged", func(t *testing.T) {
		require.NoError(t, os.WriteFile(path, whole[:20], 0o600))
		_, err := Open(t.Context(), w.config())
		require.ErrorContains(t, err, path+" is damaged: restore it from a backup, or remove it")
		require.NotContains(t, err.Error(), string(whole[:10]))
	})
	t.Run("no directory", func(t *testing.T) {
		cfg := w.config()
		cfg.Path = filepath.Join(w.dir, "none", "links.secret")
		_, err := Open(t.Context(), cfg)
		require.ErrorContains(t, err, "write the secret of URLs")
	})
	t.Run("another secret", func(t *testing.T) {
		require.NoError(t, os.Remove(path))
		l := w.open()
		require.Contains(t, w.logged(), "URLs were made with another secret: they work, but cannot be shown again")
		require.Contains(t, w.logged(), "urls=1\n", "what is revoked is nobody's concern")
		require.Empty(t, found(t, l, Chain, token, HTTPS, start), "it works as before")
		require.Empty(t, l.Token(l.List(Chain)[0]).Encode(), "rather nothing than a wrong token")
		create(t, l, Spec{Kind: Chain, Name: "b"})
	})
	t.Run("restored", func(t *testing.T) {
		require.NoError(t, os.WriteFile(path, whole, 0o600))
		l := w.open()
		require.Equal(t, token, l.Token(l.List(Chain)[0]).Encode())
	})
}

// TestTokensDiffer: of each kind, number, nonce and installation.
func TestTokensDiffer(t *testing.T) {
	a, b, nonce, other := pki.NewSecret(), pki.NewSecret(), newNonce(), newNonce()
	seen := map[string]bool{}
	for _, secret := range []pki.Secret{a, b} {
		for _, kind := range kinds() {
			for _, id := range []int64{1, 11, 111} {
				for _, nonce := range [][]byte{nonce, other} {
					token, err := tokenOf(secret, kind, id, nonce)
					require.NoError(t, err)
					require.Len(t, token.Reveal(), 32)
					require.False(t, seen[token.Encode()])
					seen[token.Encode()] = true
				}
			}
		}
	}
}
