package artifact

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/vault"
)

// keks are the three ways to give a key-encryption key.
func keks(t *testing.T) map[string]vault.KEK {
	t.Helper()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	file("nestboot", "correct horse battery staple")
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	return map[string]vault.KEK{
		"passphrase":   {PassphraseFile: file("pass", "correct horse battery staple\n")},
		"credential":   {Credential: "nestboot"},
		"age identity": {AgeIdentity: file("id", id.String()+"\n")},
	}
}

// TestT30_NothingPrivateInClear lives a life without a key-encryption key, goes
// on with one, and then looks at every byte of the state directory.
func TestT30_NothingPrivateInClear(t *testing.T) {
	for name, kek := range keks(t) {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name != "age identity" {
				t.Skip("scrypt takes its time under the race detector")
			}
			w := newWorld(t)
			require.NoError(t, os.Chmod(w.dir, 0o700))
			before := w.create(w.open(), Spec{Name: "rack1"})
			secrets := w.secrets(nil)
			require.Len(t, secrets, 6, "root, intermediate, two servers, a set, addresses")
			require.Len(t, w.showing(secrets), len(secrets), "the search finds what lies in clear")

			v, err := vault.Open(w.dir, kek)
			require.NoError(t, err)
			n, err := v.Seal(filepath.Join(w.dir, "pki"), filepath.Join(w.dir, "sets"))
			require.NoError(t, err)
			require.Equal(t, len(secrets), n)
			w.liveOn(v)
			s := w.openIn(v)
			require.Equal(t, before.Token.Encode(), s.List()[0].Token.Encode(), "the same address")
			require.Empty(t, s.List()[0].Fault)
			after := w.create(s, Spec{Name: "rack2"})
			_, err = w.ca.Rotate(t.Context())
			require.NoError(t, err)
			_, err = w.ca.RotateRoot(t.Context())
			require.NoError(t, err)
			_, err = s.Renew(t.Context(), after.ID)
			require.NoError(t, err)

			all := w.secrets(v)
			require.Greater(t, len(all), len(secrets)+2)
			for path, secret := range secrets {
				all["former "+path] = secret
			}
			require.Empty(t, w.showing(all))
			_, err = Open(t.Context(), Config{Dir: filepath.Join(w.dir, "sets"), URL: "https://ipxe.test", Store: w.store, Authority: w.ca, Log: w.logger(), Now: w.now})
			require.ErrorContains(t, err, "is encrypted, and no key is configured")
		})
	}
}

// liveOn opens the authority again, with a vault.
func (w *world) liveOn(v *vault.Vault) {
	w.t.Helper()
	var err error
	w.ca, err = pki.Open(w.t.Context(), pki.Config{Dir: filepath.Join(w.dir, "pki"), Vault: v, Store: w.store, Hosts: []string{"ipxe.test"}, Now: w.now})
	require.NoError(w.t, err)
}

func (w *world) openIn(v *vault.Vault) *Sets {
	w.t.Helper()
	s, err := Open(w.t.Context(), Config{
		Dir: filepath.Join(w.dir, "sets"), Vault: v, URL: "https://ipxe.test", Store: w.store, Authority: w.ca, Stock: w.stock, Log: w.logger(), Now: w.now,
	})
	require.NoError(w.t, err)
	return s
}

// secrets are the private bytes of all keys and secrets, by path.
func (w *world) secrets(v *vault.Vault) map[string][]byte {
	w.t.Helper()
	found := map[string][]byte{}
	w.eachFile(func(path string, _ []byte) {
		switch base := filepath.Base(path); {
		case strings.HasSuffix(base, ".key"), base == credentialFile:
			text, err := v.Read(path)
			require.NoError(w.t, err)
			found[path] = privateBytes(w.t, text)
		case base == secretFile:
			text, err := v.Read(path)
			require.NoError(w.t, err)
			secret, err := pki.ParseSecret(string(text))
			require.NoError(w.t, err)
			found[path] = secret.Reveal()
		}
	})
	return found
}

func (w *world) eachFile(f func(path string, data []byte)) {
	w.t.Helper()
	require.NoError(w.t, filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		f(path, data)
		return err
	}))
}

// privateBytes are what only the owner of a key knows, without any encoding.
func privateBytes(t *testing.T, text []byte) []byte {
	t.Helper()
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		}
		require.NoError(t, err)
		switch key := key.(type) {
		case *rsa.PrivateKey:
			return key.Primes[0].Bytes()
		case *ecdsa.PrivateKey:
			scalar, err := key.Bytes()
			require.NoError(t, err)
			return scalar
		}
	}
	t.Fatal("there is no private key in it")
	return nil
}

// showing lists the secrets that files below the state directory hold: as bytes,
// as in DER, in hexadecimal, or in base64 at whatever place, as in PEM.
func (w *world) showing(secrets map[string][]byte) map[string]string {
	w.t.Helper()
	found := map[string]string{}
	w.eachFile(func(path string, data []byte) {
		data = bytes.TrimRight(data, "\x00") // logs are made longer than they are
		joined := bytes.ReplaceAll(data, []byte("\n"), nil)
		for name, secret := range secrets {
			for _, form := range formsOf(secret[:24]) {
				if bytes.Contains(data, form) || bytes.Contains(joined, form) {
					found[name] = path
				}
			}
		}
	})
	return found
}

func formsOf(secret []byte) [][]byte {
	lower := hex.EncodeToString(secret)
	forms := [][]byte{secret, []byte(lower), []byte(strings.ToUpper(lower))}
	for shift := range 3 {
		text := base64.StdEncoding.EncodeToString(append(make([]byte, shift), secret...))
		text = text[4 : len(text)-4] // what does not depend on its neighbours
		forms = append(forms, []byte(text), []byte(strings.NewReplacer("+", "-", "/", "_").Replace(text)))
	}
	return forms
}
