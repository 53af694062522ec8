package artifact

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/vault"
)

// secretFile holds the secret from which the tokens of all sets are made.
const secretFile = "token.secret"

// openSecret reads the installation's secret from dir, or makes it and says so.
// Another secret only changes the addresses under which sets are downloaded.
func openSecret(v *vault.Vault, dir string) (secret pki.Secret, made bool, err error) {
	path := filepath.Join(dir, secretFile)
	text, err := v.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret = pki.NewSecret()
		if err := v.Write(path, []byte(secret.Encode())); err != nil {
			return pki.Secret{}, false, fmt.Errorf("secret of download addresses: %w", err)
		}
		return secret, true, nil
	}
	if err != nil {
		return pki.Secret{}, false, fmt.Errorf("secret of download addresses: %w", err)
	}
	if secret, err = pki.ParseSecret(string(text)); err != nil {
		return pki.Secret{}, false, fmt.Errorf("%s is damaged: remove it; download addresses will change: %w", path, err)
	}
	return secret, false, nil
}

// tokenOf is the secret part of a set's download addresses. It can be made
// again, so it is stored nowhere, and dies with the set, whose number is never
// used twice.
func tokenOf(secret pki.Secret, id int64) (pki.Secret, error) {
	mac := hmac.New(sha256.New, secret.Reveal())
	mac.Write([]byte("nestboot artifact set " + strconv.FormatInt(id, 10)))
	token, err := pki.ParseSecret(base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
	if err != nil {
		return pki.Secret{}, fmt.Errorf("make token of set %d: %w", id, err)
	}
	return token, nil
}
