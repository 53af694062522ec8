package trusted

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/google/renameio/v2"
)

// The last good list of each issuer lies in <number of the entry>-<issuer>.crl.
var listFile = regexp.MustCompile(`^([0-9]+)-[0-9a-f]{64}\.crl$`)

func openDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory for revocation lists: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("check the directory for revocation lists: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s may be written by other users (mode %04o): run: chmod 0700 %s", dir, info.Mode().Perm(), dir)
	}
	return nil
}

// saveLists keeps the lists for the next start. A failure costs that only.
func (t *Trusted) saveLists(ctx context.Context, m *member) {
	for issuer, l := range *m.lists.Load() {
		path := filepath.Join(t.cfg.Dir, fmt.Sprintf("%d-%s.crl", m.id, issuer))
		if err := renameio.WriteFile(path, l.raw, 0o600, renameio.WithTempDir(t.cfg.Dir)); err != nil {
			t.log.WarnContext(ctx, "a revocation list was not saved; a start without its source would miss it", "stage", "trust", "name", m.spec.Name, "err", err)
		}
	}
}

// loadLists reads what saveLists has kept. Its signatures are checked again.
func (t *Trusted) loadLists(ctx context.Context, m *member) {
	if m.spec.CRL == nil {
		return
	}
	for _, c := range m.certs {
		data, err := readLimited(filepath.Join(t.cfg.Dir, fmt.Sprintf("%d-%s.crl", m.id, issuerOf(c))))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			_, err = t.useLists(m, data)
		}
		if err != nil {
			t.log.WarnContext(ctx, "a saved revocation list cannot be used", "stage", "trust", "name", m.spec.Name, "err", err)
		}
	}
}

// dropLists removes the lists of an entry that is gone.
func (t *Trusted) dropLists(ctx context.Context, id int64) {
	t.sweepFiles(ctx, func(owner int64) bool { return owner == id })
}

// sweepDir removes the lists of entries that are gone.
func (t *Trusted) sweepDir(ctx context.Context) {
	all := t.all.Load()
	t.sweepFiles(ctx, func(owner int64) bool { return all.number(owner) == nil })
}

func (t *Trusted) sweepFiles(ctx context.Context, drop func(owner int64) bool) {
	files, err := os.ReadDir(t.cfg.Dir)
	for _, f := range files {
		form := listFile.FindStringSubmatch(f.Name())
		if form == nil {
			continue
		}
		owner, parseErr := strconv.ParseInt(form[1], 10, 64)
		if parseErr == nil && drop(owner) {
			err = errors.Join(err, os.Remove(filepath.Join(t.cfg.Dir, f.Name())))
		}
	}
	if err != nil {
		t.log.WarnContext(ctx, "revocation lists of removed entries were left behind", "stage", "trust", "err", err)
	}
}
