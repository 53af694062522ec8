package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
)

const (
	// scryptCost is log2 of scrypt's N for a passphrase: OWASP's least (2^17, r 8),
	// which takes 128 MiB and a quarter of a second at each start.
	scryptCost = 17
	// maxScryptCost bounds what a vault.age that somebody else made may cost:
	// 1 GiB.
	maxScryptCost = 20
	// minPassphrase is how many bytes a passphrase has at least. It is read from
	// a file, so nobody has to remember it.
	minPassphrase = 12
	maxKEK        = 64 << 10
	agePrefix     = "AGE-SECRET-KEY-"
	// credentialsEnv is where systemd says which directory holds the service's
	// credentials (systemd.exec(5)).
	credentialsEnv = "CREDENTIALS_DIRECTORY"
)

// KEK says where the key-encryption key comes from. One field at most is set;
// with none, private files are not encrypted.
type KEK struct {
	// PassphraseFile is the path of a file with a passphrase of at least 12
	// bytes, whose trailing newlines don't count, or with an age identity.
	PassphraseFile string
	// Credential is the name of a systemd credential (LoadCredentialEncrypted=)
	// that holds the same.
	Credential string
	// AgeIdentity is the path of a file with age identities, as age-keygen
	// writes it.
	AgeIdentity string
}

func (k KEK) zero() bool { return k == KEK{} }

// String names the source, not the key.
func (k KEK) String() string {
	switch {
	case k.PassphraseFile != "":
		return "keys.passphrase_file " + k.PassphraseFile
	case k.Credential != "":
		return "keys.credential " + k.Credential
	case k.AgeIdentity != "":
		return "keys.age_identity " + k.AgeIdentity
	default:
		return "no key"
	}
}

// Validate returns all faults that show without reading the key.
func (k KEK) Validate() error {
	var set []string
	for _, f := range []struct{ name, value string }{
		{"passphrase_file", k.PassphraseFile}, {"credential", k.Credential}, {"age_identity", k.AgeIdentity},
	} {
		if f.value != "" {
			set = append(set, f.name)
		}
	}
	var faults []error
	if len(set) > 1 {
		faults = append(faults, fmt.Errorf("keys: %s are set: leave one of them", strings.Join(set, " and ")))
	}
	if c := k.Credential; c != "" && (filepath.Base(c) != c || strings.HasPrefix(c, ".")) {
		faults = append(faults, fmt.Errorf("keys.credential is %q: give the name of a credential, not a path", c))
	}
	return errors.Join(faults...)
}

// Check returns the faults of Validate, and those of the key that is there. It
// doesn't tell whether it is the right one.
func (k KEK) Check() error {
	if err := k.Validate(); err != nil || k.zero() {
		return err
	}
	_, err := k.read()
	return err
}

// secret is what the key-encryption key's file holds: identities of age, or a
// passphrase.
type secret struct {
	ids        []age.Identity
	passphrase string
}

func (k KEK) read() (secret, error) {
	path := k.PassphraseFile + k.AgeIdentity
	if k.Credential != "" {
		dir := os.Getenv(credentialsEnv)
		if dir == "" {
			return secret{}, fmt.Errorf("%s: $%s is not set: start bootd as a systemd service with LoadCredentialEncrypted=%s", k, credentialsEnv, k.Credential)
		}
		path = filepath.Join(dir, k.Credential)
	}
	text, err := readKEK(path)
	if err != nil {
		return secret{}, fmt.Errorf("%s: %w", k, err)
	}
	if k.AgeIdentity == "" && !hasIdentity(text) {
		pass := strings.TrimRight(string(text), "\r\n")
		if len(pass) < minPassphrase {
			return secret{}, fmt.Errorf("%s: the passphrase has %d bytes, which is less than %d: make one with: openssl rand -base64 32", k, len(pass), minPassphrase)
		}
		return secret{passphrase: pass}, nil
	}
	ids, err := age.ParseIdentities(bytes.NewReader(text)) // its errors don't quote the key
	if err != nil {
		return secret{}, fmt.Errorf("%s: it holds no age identity, make one with age-keygen: %w", k, err)
	}
	return secret{ids: ids}, nil
}

// hasIdentity reports whether a line of the text is an age identity.
func hasIdentity(text []byte) bool {
	for line := range bytes.Lines(text) {
		if bytes.HasPrefix(line, []byte(agePrefix)) {
			return true
		}
	}
	return false
}

// readKEK reads a file that the operator or systemd put there. Its group may
// read it: systemd's access lists and Kubernetes' mounts show as that.
func readKEK(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("check permissions of the key: %w", err)
	}
	if perm := st.Mode().Perm(); perm&0o027 != 0 {
		return nil, fmt.Errorf("%s is open to others (mode %04o): run: chmod 0400 %s", path, perm, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKEK+1))
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	if len(text) > maxKEK {
		return nil, fmt.Errorf("%s is larger than %d bytes: it is not a key", path, maxKEK)
	}
	return text, nil
}

func (k KEK) recipients(cost int) ([]age.Recipient, error) {
	s, err := k.read()
	if err != nil {
		return nil, err
	}
	if s.ids == nil {
		r, err := age.NewScryptRecipient(s.passphrase)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
		r.SetWorkFactor(cost)
		return []age.Recipient{r}, nil
	}
	var to []age.Recipient
	for _, id := range s.ids {
		switch id := id.(type) {
		case *age.X25519Identity:
			to = append(to, id.Recipient())
		case *age.HybridIdentity:
			to = append(to, id.Recipient())
		default:
			return nil, fmt.Errorf("%s: an identity of type %T is not supported: make one with age-keygen", k, id)
		}
	}
	return to, nil
}

func (k KEK) identities() ([]age.Identity, error) {
	s, err := k.read()
	if err != nil {
		return nil, err
	}
	if s.ids != nil {
		return s.ids, nil
	}
	id, err := age.NewScryptIdentity(s.passphrase)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k, err)
	}
	id.SetMaxWorkFactor(maxScryptCost)
	return []age.Identity{id}, nil
}
