package links

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/vault"
)

const nonceBytes = 32

// openSecret reads the installation's secret, or makes it.
func openSecret(v *vault.Vault, path string) (pki.Secret, error) {
	text, err := v.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret := pki.NewSecret()
		if err := v.Write(path, []byte(secret.Encode())); err != nil {
			return pki.Secret{}, fmt.Errorf("write the secret of URLs: %w", err)
		}
		return secret, nil
	}
	if err != nil {
		return pki.Secret{}, fmt.Errorf("read the secret of URLs: %w", err)
	}
	secret, err := pki.ParseSecret(string(text))
	if err != nil {
		return pki.Secret{}, fmt.Errorf("%s is damaged: restore it from a backup, or remove it: URLs go on working, but cannot be shown again: %w", path, err)
	}
	return secret, nil
}

func newNonce() []byte {
	b := make([]byte, nonceBytes)
	_, _ = rand.Read(b) // never fails: the runtime ends the process instead
	return b
}

// tokenOf makes the token of a link. The kind and the number keep it from being
// another link's; the nonce keeps it from being that of a link with the same
// number in an installation that was restored from a backup.
func tokenOf(secret pki.Secret, kind pki.Kind, id int64, nonce []byte) (pki.Secret, error) {
	mac := hmac.New(sha256.New, secret.Reveal())
	_, _ = fmt.Fprintf(mac, "nestboot %s %d ", kind, id)
	mac.Write(nonce)
	return pki.ParseSecret(base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
}

func digestOf(token pki.Secret) pki.Digest { return sha256.Sum256(token.Reveal()) }

// Token returns the token of a link that Get, List or Create returned. It is
// empty when the link was made with another secret of this installation: then
// only who has noted the URL knows it.
func (l *Links) Token(link Link) pki.Secret {
	token, err := tokenOf(l.secret, link.Kind, link.ID, link.nonce)
	if err != nil || digestOf(token) != link.digest {
		return pki.Secret{}
	}
	return token
}
