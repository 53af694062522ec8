package depot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/nestboot/nestboot/images/release"
	"github.com/nestboot/nestboot/images/signature"
)

// Partial is where a file of a release is put together before it is published.
// It is the same for the same file, so that a download can go on.
func (d *Depot) Partial(r release.Ref, file string) string {
	sum := sha256.Sum256([]byte(r.ID() + "\x00" + file))
	return d.path(partialDir, hex.EncodeToString(sum[:16]))
}

// Publish makes a release visible. Each file that is not in the depot yet is
// taken from its path in parts, by digest; the caller has verified them. An older
// version than was here needs force, and counts as the newest then. So do other
// files or arguments for a release that is here; while it is in use, that is an
// InUseError.
func (d *Depot) Publish(ctx context.Context, m Manifest, parts map[string]string, force bool) error {
	if err := m.Validate(); err != nil {
		return err
	}
	for _, f := range m.Files() {
		if path, ok := parts[f.SHA256]; ok {
			if err := syncFile(path); err != nil {
				return err
			}
			if _, err := d.verifyBlob(ctx, f, nil); err != nil { // what is damaged here makes room for what comes
				return err
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.mayPublish(m, force); err != nil {
		return err
	}
	if err := d.takeIn(m, parts); err != nil {
		return err
	}
	return d.show(m, force)
}

// mayPublish is called with mu held.
func (d *Depot) mayPublish(m Manifest, force bool) error {
	if err := d.checkSame(m, force); err != nil || force {
		return err
	}
	return errors.Join(d.check(m.Ref, m.Order), d.checkSigned(m))
}

// checkSame refuses other content for a release that is here: what a name in
// bootd.yaml stands for changes by an edit of that file alone.
func (d *Depot) checkSame(m Manifest, force bool) error {
	have, err := d.Get(m.Ref)
	if err != nil { // not here, or a manifest that cannot be used
		return nil
	}
	if slices.Equal(have.Files(), m.Files()) && slices.Equal(have.Args, m.Args) {
		return nil
	}
	if slices.Contains(d.cfg.InUse(), m.ID()) {
		return fmt.Errorf("other files or arguments than those of the %s that is here: %w", m.Ref, &InUseError{ID: m.ID()})
	}
	if !force {
		return &signature.Refusal{Code: signature.CodeDifferent, Reason: fmt.Sprintf(
			"%s is here with other files or arguments: makers do not change a release, so find out why it differs; with --force it is replaced", m.Ref)}
	}
	return nil
}

// takeIn renames files to where their digests say.
func (d *Depot) takeIn(m Manifest, parts map[string]string) error {
	for _, f := range m.Files() {
		path, ok := parts[f.SHA256]
		if !ok {
			if !d.Has(f) {
				return fmt.Errorf("%s of %s is not here any more: pull it again", f.Name, m.ID())
			}
			continue
		}
		if d.Has(f) { // replacing it would cut off who reads it
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove a second copy of %s: %w", f.Name, err)
			}
			continue
		}
		if err := os.Rename(path, d.blob(f.SHA256)); err != nil {
			return fmt.Errorf("put %s in place: %w", f.Name, err)
		}
	}
	return syncDir(d.path(blobDir))
}

// show writes the mark and then the manifest: a power cut in between leaves a
// mark that is too high, never one that lets an older release in.
func (d *Depot) show(m Manifest, force bool) error {
	if err := d.mark(m, force); err != nil {
		return err
	}
	data, err := m.Encode()
	if err != nil {
		return err
	}
	return d.write(d.manifest(m.Ref), data)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open download: %w", err)
	}
	defer func() { _ = f.Close() }() // it is synced
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// Keys returns the public keys of a system that a pull has used before, nil if
// there are none.
func (d *Depot) Keys(system string) ([]byte, error) {
	data, err := os.ReadFile(d.keyFile(system))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// SaveKeys keeps the public keys of a system, for when they cannot be fetched,
// and for what they say of revocations.
func (d *Depot) SaveKeys(system string, data []byte) error {
	return d.write(d.keyFile(system), data)
}

func (d *Depot) keyFile(system string) string { return d.path(keysDir, filepath.Base(system)) }
