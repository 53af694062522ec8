// Package images holds the operating systems that machines boot: their files,
// opened, measured and digested before the first machine may ask for them.
//
// It does not serve them and does not know who boots which. Begin at Open.
package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// Spec names the files of an image on disk.
type Spec struct {
	Name    string   // lower-case letters, digits, ".", "_" and "-"; part of URLs
	Kernel  string   // path
	Initrds []string // paths, in the order in which the kernel unpacks them
}

// File is one file of an image. It stays open, so what is served is what was
// digested even when the path is replaced on disk.
type File struct {
	Name     string // last element of its URL, unique in its image
	Size     int64  // bytes
	SHA256   string // hexadecimal
	Modified time.Time
	file     *os.File
	// inode is when the inode changed last, of a Part. Unlike the time of
	// modification nobody can set it back, and whoever takes a file out of a store
	// changes it too.
	inode time.Time
}

// Part is a file that lies in a store under its digest.
type Part struct {
	Name   string // last element of its URL
	Path   string
	SHA256 string // hexadecimal; what it must have
}

// ErrDamaged is a file that is not what its digest says.
var ErrDamaged = errors.New("it is not what it was when it was stored")

// Image is an image that can be served.
type Image struct {
	Name    string
	Kernel  *File
	Initrds []*File
}

// imageName keeps a name shorter than a token, which logs leave out.
var imageName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,41}$`)

// CheckName reports whether name can be an image's.
func CheckName(name string) error {
	if !imageName.MatchString(name) {
		return fmt.Errorf("image name %q: want 1 to 42 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit", name)
	}
	return nil
}

// Open opens and digests every file of the image. The error of a file that is
// missing, unreadable, empty or not a regular file names the image and the
// path. Files that were opened before are closed again.
func Open(ctx context.Context, s Spec) (*Image, error) {
	if err := CheckName(s.Name); err != nil {
		return nil, err
	}
	img := &Image{Name: s.Name}
	var err error
	if img.Kernel, err = openFile(ctx, s.Kernel, filepath.Base(s.Kernel)); err != nil {
		return nil, fmt.Errorf("image %s: kernel: %w", s.Name, err)
	}
	for i, path := range s.Initrds {
		// The number keeps names apart when two directories hold an initrd.
		f, err := openFile(ctx, path, fmt.Sprintf("%d-%s", i, filepath.Base(path)))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("image %s: initrd: %w", s.Name, err), img.Close())
		}
		img.Initrds = append(img.Initrds, f)
	}
	return img, nil
}

// OpenParts opens an image whose files lie in a store. Each is digested, and one
// that has not its digest is ErrDamaged: nothing of it is served (T28).
func OpenParts(ctx context.Context, name string, kernel Part, initrds []Part) (*Image, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	img := &Image{Name: name}
	for i, p := range append([]Part{kernel}, initrds...) {
		f, err := openPart(ctx, p)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("image %s: %w", name, err), img.Close())
		}
		if i == 0 {
			img.Kernel = f
			continue
		}
		f.Name = fmt.Sprintf("%d-%s", i-1, f.Name)
		img.Initrds = append(img.Initrds, f)
	}
	return img, nil
}

func openPart(ctx context.Context, p Part) (*File, error) {
	f, err := openFile(ctx, p.Path, p.Name)
	if err != nil {
		return nil, err
	}
	if f.SHA256 != p.SHA256 {
		return nil, errors.Join(fmt.Errorf("%s (%s): %w", p.Name, p.Path, ErrDamaged), f.file.Close())
	}
	st, err := f.file.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("stat: %w", err), f.file.Close())
	}
	f.inode = inodeChanged(st)
	return f, nil
}

func inodeChanged(st fs.FileInfo) time.Time {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok { // Linux has it
		return st.ModTime()
	}
	return time.Unix(sys.Ctim.Unix())
}

// File returns the file of that name.
func (i *Image) File(name string) (f *File, kernel, ok bool) {
	if i.Kernel.Name == name {
		return i.Kernel, true, true
	}
	for _, f := range i.Initrds {
		if f.Name == name {
			return f, false, true
		}
	}
	return nil, false, false
}

// Close closes the image's files.
func (i *Image) Close() error {
	var err error
	if i.Kernel != nil {
		err = i.Kernel.file.Close()
	}
	for _, f := range i.Initrds {
		err = errors.Join(err, f.file.Close())
	}
	return err
}

// Reader reads the file from its beginning, with an offset of its own.
func (f *File) Reader() (*io.SectionReader, error) {
	now, err := f.file.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat %s: %w", f.file.Name(), err)
	}
	changed := now.Size() != f.Size || !now.ModTime().Equal(f.Modified)
	if changed || !f.inode.IsZero() && !inodeChanged(now).Equal(f.inode) {
		return nil, fmt.Errorf("%s was changed in place after it was digested: reload or restart bootd to take it as it is now", f.file.Name())
	}
	return io.NewSectionReader(f.file, 0, f.Size), nil
}

func openFile(ctx context.Context, path, name string) (*File, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // does not wait for a pipe
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: make it readable for the user that bootd runs as", err)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: put it there or correct the path", err)
	case err != nil:
		return nil, err
	}
	f, err := digest(ctx, file, name)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), file.Close())
	}
	return f, nil
}

func digest(ctx context.Context, file *os.File, name string) (*File, error) {
	st, err := file.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("stat: %w", err)
	case !st.Mode().IsRegular():
		return nil, errors.New("not a regular file: name the file itself")
	case st.Size() == 0:
		return nil, errors.New("the file is empty: download it again")
	}
	h := sha256.New()
	if _, err := io.Copy(h, contextReader{ctx, file}); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return &File{Name: name, Size: st.Size(), SHA256: hex.EncodeToString(h.Sum(nil)), Modified: st.ModTime(), file: file}, nil
}

// contextReader ends a long read when its context does. It lives only as long
// as one call of digest.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
