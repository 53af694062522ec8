package depot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/time/rate"

	"github.com/nestboot/nestboot/images/release"
)

const (
	scrubEvery = 24 * time.Hour
	scrubRetry = time.Hour
	scrubRate  = 32 << 20 // bytes a second: a tenth of a slow disk
	scrubChunk = 1 << 20
)

// Verify reads every file of a release and compares it with its digest. A file
// that differs is taken out. It returns the names of files that are damaged or
// missing.
func (d *Depot) Verify(ctx context.Context, r release.Ref) (damaged []string, err error) {
	m, err := d.Get(r)
	if err != nil {
		return nil, err
	}
	return d.verify(ctx, m, nil)
}

func (d *Depot) verify(ctx context.Context, m Manifest, pace *rate.Limiter) (damaged []string, err error) {
	damaged = []string{}
	for _, f := range m.Files() {
		good, err := d.verifyBlob(ctx, f, pace)
		if err != nil {
			return damaged, err
		}
		if !good {
			damaged = append(damaged, f.Name)
			d.cfg.Log.ErrorContext(ctx, "a file of an image is damaged or missing, and its release is not served: pull it again",
				"image", m.ID(), "file", f.Name, "sha256", f.SHA256)
		}
	}
	return damaged, nil
}

// verifyBlob reports whether a file has its digest, and takes out one that has
// not. The error is of what says nothing about the file.
func (d *Depot) verifyBlob(ctx context.Context, f File, pace *rate.Limiter) (good bool, err error) {
	path := d.blob(f.SHA256)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("verify image: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	before, err := file.Stat()
	if err != nil {
		return false, fmt.Errorf("verify image: %w", err)
	}
	h := sha256.New()
	_, err = io.CopyBuffer(struct{ io.Writer }{h}, &paced{ctx, file, pace}, make([]byte, scrubChunk))
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err == nil && hex.EncodeToString(h.Sum(nil)) == f.SHA256 {
		return true, nil
	}
	return false, d.quarantine(f.SHA256, before) // a disk that cannot read it counts too
}

// quarantine takes a file out, unless another has come into its place, or the
// depot is only looked at.
func (d *Depot) quarantine(sha string, seen fs.FileInfo) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, err := os.Stat(d.blob(sha))
	if err != nil || !os.SameFile(seen, now) || !d.prepared {
		return nil
	}
	// The rename changes the inode's time: whoever has the file open serves no
	// more of it (images.File).
	if err := os.Rename(d.blob(sha), d.path(quarantineDir, sha)); err != nil {
		return fmt.Errorf("take a damaged file out: %w", err)
	}
	return nil
}

// paced reads at a rate, until its context ends. It lives as long as one call of
// verifyBlob.
type paced struct {
	ctx  context.Context
	r    io.Reader
	rate *rate.Limiter // nil: none
}

func (p *paced) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := p.r.Read(b)
	if p.rate != nil && n > 0 {
		if wait := p.rate.WaitN(p.ctx, n); wait != nil {
			return n, wait
		}
	}
	return n, err
}

// Run compares every file with its digest once a day, slowly, until ctx ends.
func (d *Depot) Run(ctx context.Context) {
	for {
		d.mu.Lock()
		wait := d.state.Scrubbed.Add(scrubEvery).Sub(d.cfg.Now())
		d.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(max(wait, time.Minute), scrubEvery)): // a clock that was set back waits no longer
		}
		if err := d.Scrub(ctx); err != nil && ctx.Err() == nil {
			d.cfg.Log.ErrorContext(ctx, "images could not be verified", "err", err)
		}
	}
}

// Scrub compares every file with its digest, slowly. After a file that cannot be
// opened it goes on, and the next scrub is in an hour.
func (d *Depot) Scrub(ctx context.Context) error {
	list, err := d.List()
	if err != nil {
		return err
	}
	pace := rate.NewLimiter(scrubRate, scrubChunk)
	bad, next := 0, scrubEvery
	var errs []error
	for _, i := range list {
		damaged, err := d.verify(ctx, i.Manifest, pace)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil { // it says nothing about the others
			errs, next = append(errs, fmt.Errorf("%s: %w", i.ID(), err)), scrubRetry
		}
		bad += len(damaged)
	}
	d.cfg.Log.InfoContext(ctx, "images were verified", "releases", len(list), "damaged", bad)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.Scrubbed = d.cfg.Now().Add(next - scrubEvery)
	return errors.Join(append(errs, d.saveState())...)
}
