// Package vault keeps the private files of an installation: keys, credentials
// and secrets. Each is whole or absent whenever the power fails, belongs to one
// user alone and, where a key-encryption key is configured, is encrypted.
//
// Encryption is age's (age-encryption.org/v1) and has two levels. The files are
// encrypted to one key of the vault, which lies in vault.age, itself encrypted to
// the operator's key-encryption key: that one is asked for once per start, and
// may change without any other file changing. Everything can be decrypted by
// hand, with age and the key-encryption key:
//
//	age -d vault.age > vault.key && age -d -i vault.key pki/root.key
//
// It helps against the thief of a disk or of a backup that does not hold the
// key-encryption key, not against somebody who is this process's user. What the
// files mean is their owners' business. Begin at Open.
package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"filippo.io/age"
)

const (
	// keyFile holds the vault's own key.
	keyFile = "vault.age"
	// maxFile is how many bytes a private file may have: they are keys and
	// short texts.
	maxFile = 1 << 20
	// header begins each file in age's binary form.
	header = "age-encryption.org/v1\n"
)

// Vault reads and writes private files. A nil one writes them in clear. Its
// methods may be called concurrently, Seal and Rewrap apart.
type Vault struct {
	dir string
	key *age.X25519Identity // nil: files are in clear

	scryptCost int               // log2 of scrypt's N
	steps      func(step string) // tests end the process in it; may be nil
}

// Open makes dir if need be and opens the vault in it. The directory must be
// this user's alone. With a key-encryption key, the first Open makes the vault's
// own key; files from before stay in clear until Seal. One that was opened with
// a key-encryption key is refused without it, or with another.
func Open(dir string, kek KEK) (*Vault, error) {
	return open(dir, kek, scryptCost)
}

func open(dir string, kek KEK, cost int) (*Vault, error) {
	v := &Vault{dir: dir, scryptCost: cost}
	if err := v.open(kek); err != nil {
		return nil, fmt.Errorf("private files: %w", err)
	}
	return v, nil
}

func (v *Vault) open(kek KEK) error {
	if err := kek.Validate(); err != nil {
		return err
	}
	if err := Dir(v.dir); err != nil {
		return err
	}
	path := filepath.Join(v.dir, keyFile)
	sealed, err := readFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch missing := err != nil; {
	case kek.zero() && missing:
		return nil
	case kek.zero():
		return noKey(path)
	case missing:
		return v.create(kek)
	default:
		v.key, err = unwrap(path, sealed, kek)
		return err
	}
}

// Check reports what Open would refuse of a key-encryption key, and makes
// nothing. What this user may not read is no fault.
func Check(dir string, kek KEK) error {
	path := filepath.Join(dir, keyFile)
	sealed, err := readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return nil
	case err != nil:
		return fmt.Errorf("private files: %w", err)
	case kek.zero():
		return fmt.Errorf("private files: %w", noKey(path))
	}
	if _, err := unwrap(path, sealed, kek); err != nil {
		return fmt.Errorf("private files: %w", err)
	}
	return nil
}

func noKey(path string) error {
	return fmt.Errorf("%s says that they are encrypted, and no key is configured: set keys.passphrase_file, keys.credential or keys.age_identity to the one that they were encrypted with", path)
}

// create makes the vault's key, unless files show that there has been one.
func (v *Vault) create(kek KEK) error {
	lost, err := v.encrypted()
	if err != nil {
		return err
	}
	if lost != "" {
		return fmt.Errorf("%s is missing, and %s is encrypted with the key in it: restore it from a backup", filepath.Join(v.dir, keyFile), lost)
	}
	key, err := age.GenerateX25519Identity()
	if err != nil {
		return fmt.Errorf("make the vault's key: %w", err)
	}
	if err := v.wrap(key, kek); err != nil {
		return err
	}
	v.key = key
	return nil
}

// wrap writes the vault's key, encrypted to a key-encryption key.
func (v *Vault) wrap(key *age.X25519Identity, kek KEK) error {
	to, err := kek.recipients(v.scryptCost)
	if err != nil {
		return err
	}
	sealed, err := encrypt([]byte(key.String()+"\n"), to...)
	if err != nil {
		return fmt.Errorf("encrypt the vault's key: %w", err)
	}
	return writeFile(filepath.Join(v.dir, keyFile), sealed)
}

// unwrap decrypts the content of the vault's key file.
func unwrap(path string, sealed []byte, kek KEK) (*age.X25519Identity, error) {
	ids, err := kek.identities()
	if err != nil {
		return nil, err
	}
	text, err := decrypt(sealed, ids...)
	var mismatch *age.NoIdentityMatchError
	if errors.As(err, &mismatch) {
		return nil, fmt.Errorf("%s does not open %s: configure the key that it was made with", kek, path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: restore it from a backup: %w", path, err)
	}
	key, err := age.ParseX25519Identity(string(bytes.TrimSpace(text)))
	if err != nil {
		return nil, fmt.Errorf("%s is damaged, it holds no key: restore it from a backup", path)
	}
	return key, nil
}

// Rewrap changes the key-encryption key from the one that the vault was opened
// with to next. The vault's own key and the other files stay: whoever has an old
// copy of vault.age and the former key-encryption key can still read them.
func (v *Vault) Rewrap(next KEK) error {
	if err := next.Validate(); err != nil {
		return fmt.Errorf("change the key of private files: %w", err)
	}
	if !v.Sealed() {
		return errors.New("change the key of private files: they are not encrypted: configure a key and start bootd with it")
	}
	if next.zero() {
		return errors.New("change the key of private files: the next key is required: name a passphrase file, a credential or an age identity")
	}
	if err := v.wrap(v.key, next); err != nil {
		return fmt.Errorf("change the key of private files: %w", err)
	}
	return nil
}

// Sealed reports whether what is written is encrypted.
func (v *Vault) Sealed() bool { return v != nil && v.key != nil }

// Write replaces a file by data, with mode 0600. When it returns nil, the file
// outlives a power cut; when the process dies in it, the former one stays. Its
// directory must exist.
func (v *Vault) Write(path string, data []byte) error {
	if len(data) > maxFile {
		return fmt.Errorf("write %s: it has %d bytes, a private file at most %d", path, len(data), maxFile)
	}
	if v.Sealed() {
		sealed, err := encrypt(data, v.key.Recipient())
		if err != nil {
			return fmt.Errorf("encrypt %s: %w", path, err)
		}
		data = sealed
	}
	return writeFile(path, data)
}

// Read returns what Write wrote, be it encrypted or from before encryption was
// configured. It fails with fs.ErrNotExist if there is no such file, and refuses
// one that others may read: it may have been read.
func (v *Vault) Read(path string) ([]byte, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	if !encryptedForm(data) {
		return data, nil
	}
	if !v.Sealed() {
		return nil, fmt.Errorf("%s is encrypted, and no key is configured: set keys.passphrase_file, keys.credential or keys.age_identity to the one that it was encrypted with", path)
	}
	plain, err := decrypt(data, v.key)
	var mismatch *age.NoIdentityMatchError
	if errors.As(err, &mismatch) {
		return nil, fmt.Errorf("%s is encrypted with another key than that in %s: restore both from the same backup", path, filepath.Join(v.dir, keyFile))
	}
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: restore it from a backup: %w", path, err)
	}
	return plain, nil
}

func (v *Vault) step(name string) {
	if v.steps != nil {
		v.steps(name)
	}
}

func encryptedForm(data []byte) bool { return bytes.HasPrefix(data, []byte(header)) }

func encrypt(data []byte, to ...age.Recipient) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func decrypt(data []byte, by ...age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(data), by...)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
