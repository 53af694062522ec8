package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/nestboot/nestboot/images"
)

// Folder is a folder on this host: a mounted stick, a copy of a mirror. Files are
// looked for where a mirror has them, and then by the last part of their name.
type Folder struct {
	dir     string
	reserve int64
}

// NewFolder opens nothing yet. reserve is how many bytes must stay free where
// files are copied to.
func NewFolder(dir string, reserve int64) (*Folder, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("folder %.200q: bootd reads it, so name it from the root", dir)
	}
	return &Folder{dir: dir, reserve: reserve}, nil
}

func (f *Folder) String() string { return f.dir }

// open opens a regular file below the folder. Links that lead out of it do not
// count (T27).
func (f *Folder) open(name string) (*os.File, int64, error) {
	root, err := os.OpenRoot(f.dir)
	if err != nil {
		return nil, 0, fmt.Errorf("open folder: %w", err)
	}
	defer func() { _ = root.Close() }() // it was only read
	file, err := openRegular(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		var flat error
		if file, flat = openRegular(root, path.Base(name)); flat == nil {
			err = nil
		}
	}
	if err != nil {
		return nil, 0, fmt.Errorf("folder %s: %w", f.dir, err)
	}
	st, err := file.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, st.Size(), nil
}

func openRegular(root *os.Root, name string) (*os.File, error) {
	st, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() { // opening a pipe would wait
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	return root.Open(name)
}

// Small returns a whole file.
func (f *Folder) Small(_ context.Context, name string, limit int64) ([]byte, error) {
	file, size, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	if size > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", file.Name(), limit)
	}
	return io.ReadAll(io.LimitReader(file, limit))
}

// Large copies a file, always from its beginning.
func (f *Folder) Large(ctx context.Context, name, to string, limit int64, progress func(done, total int64)) error {
	from, size, err := f.open(name)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // it was only read
	if size > limit {
		return fmt.Errorf("%s has %d bytes; at most %d are taken", from.Name(), size, limit)
	}
	if err := images.RoomFor(to, size, f.reserve); err != nil {
		return err
	}
	// What a site has left is written over, so nothing may say any more that it is
	// the beginning of the site's file.
	if err := ignoreMissing(os.Remove(to + OriginSuffix)); err != nil {
		return fmt.Errorf("begin copy: %w", err)
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("open copy: %w", err)
	}
	err = copyAll(ctx, out, io.LimitReader(from, limit), size, progress)
	if images.NoSpace(err) { // others need what this has taken
		return errors.Join(err, out.Close(), os.Remove(to))
	}
	return errors.Join(err, out.Close())
}

func copyAll(ctx context.Context, out io.Writer, in io.Reader, size int64, progress func(done, total int64)) error {
	const chunk = 4 << 20
	for done := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.CopyN(out, in, chunk)
		done += n
		progress(done, size)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("copy: %w", err)
		}
	}
}
