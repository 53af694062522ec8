package ipxebuild

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"
)

// Bounds on a package (T26). Debian's ipxe 2.0.0 has 2.6 MB, unpacks to 15 MB
// and is packed with a dictionary of 8 MiB.
const (
	maxDeb        = 64 << 20 // bytes of the .deb, and of what it unpacks to
	maxDictionary = 32 << 20
	maxText       = 1 << 20 // bytes of the control and copyright files
)

var (
	packageName    = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{1,60}$`)
	packageVersion = regexp.MustCompile(`^[0-9][0-9A-Za-z.+~:-]{0,100}$`)
)

// ReadDeb takes the binaries that we know, by their names, out of a Debian
// package. data is the whole .deb and file its name, for messages and the
// Origin. Other files are ignored; a package with nothing for us is an error,
// as is a binary that ReadBase would refuse. Allocations are bounded: a .deb
// has at most 64 MiB, as has what it unpacks to (T26), and names are
// flattened (T27).
func ReadDeb(file string, data []byte) (Bundle, error) {
	b, err := readDeb(file, data)
	if err != nil {
		return Bundle{}, fmt.Errorf("read %s: %w", file, err)
	}
	return b, nil
}

func readDeb(file string, data []byte) (Bundle, error) {
	if len(data) > maxDeb {
		return Bundle{}, fmt.Errorf("%d bytes, more than any package that has boot programs", len(data))
	}
	members, err := readAr(data)
	if err != nil {
		return Bundle{}, fmt.Errorf("%w: want a Debian package (.deb)", err)
	}
	sum := sha256.Sum256(data)
	b := Bundle{Origin: Origin{File: path.Base(file), SHA256: hex.EncodeToString(sum[:])}}
	source, err := b.readControl(members)
	if err != nil {
		return Bundle{}, err
	}
	files := map[string][]byte{}
	if err := eachFile(members, "data", func(name string, r io.Reader, size int64) error {
		return b.takeFile(files, name, r, size)
	}); err != nil {
		return Bundle{}, err
	}
	if err := b.takeBases(files); err != nil {
		return Bundle{}, err
	}
	b.describe(fmt.Sprintf("Debian source package %s; ", source))
	return b, nil
}

// readControl reads the package's control file.
func (b *Bundle) readControl(members map[string][]byte) (string, error) {
	var text []byte
	if err := eachFile(members, "control", func(name string, r io.Reader, size int64) (err error) {
		if path.Base(name) == "control" && text == nil {
			text, err = readAll(name, r, size, maxText)
		}
		return err
	}); err != nil {
		return "", err
	}
	c, err := readControl(text)
	if err != nil {
		return "", err
	}
	b.Origin.Package, b.Origin.Version = c.name, c.version
	return c.source, nil
}

// control is what a package says of itself.
type control struct {
	name, version string
	source        string // name and version of its source package
}

// readControl reads a paragraph of fields as deb-control(5) describes it.
func readControl(text []byte) (control, error) {
	fields, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(append(bytes.Clone(text), '\n', '\n')))).ReadMIMEHeader()
	if err != nil {
		return control{}, fmt.Errorf("read its control file: %w", err)
	}
	c := control{name: fields.Get("Package"), version: fields.Get("Version")}
	if !packageName.MatchString(c.name) || !packageVersion.MatchString(c.version) {
		return control{}, fmt.Errorf("control file says package %.60q version %.60q", c.name, c.version)
	}
	// "Source: shim-signed (1.51)" where it differs from the package's.
	name, version, _ := strings.Cut(fields.Get("Source"), " ")
	version = strings.Trim(version, "()")
	if !packageName.MatchString(name) {
		name = c.name
	}
	if !packageVersion.MatchString(version) {
		version = c.version
	}
	c.source = name + " " + version
	return c, nil
}

// takeFile keeps a file of the package if it is one of ours.
func (b *Bundle) takeFile(files map[string][]byte, name string, r io.Reader, size int64) (err error) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	base := path.Base(name)
	switch {
	case known(name):
		if _, ok := files[base]; ok {
			return fmt.Errorf("%s is there twice", base)
		}
		files[base], err = readAll(name, r, size, maxBase)
	case base == copyrightName && path.Dir(path.Dir(name)) == "usr/share/doc":
		b.License, err = readAll(name, r, size, maxText)
	}
	return err
}

// takeBases checks the files that were found and puts them in order.
func (b *Bundle) takeBases(files map[string][]byte) error {
	if len(files) == 0 {
		return errors.New("no boot program that sets are made of is in it")
	}
	var errs []error
	for name, data := range files {
		base, err := ReadBase(name, data)
		b.Bases = append(b.Bases, base)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	slices.SortFunc(b.Bases, func(x, y Base) int { return strings.Compare(x.Name, y.Name) })
	return b.checkVersions()
}

// checkVersions makes sure that all of iPXE is of one version.
func (b *Bundle) checkVersions() error {
	first := map[string]string{} // file by version
	for _, x := range b.Bases {
		if x.Kind.isIPXE() && first[x.Version] == "" {
			first[x.Version] = x.Name
		}
	}
	if len(first) < 2 {
		return nil
	}
	var all []string
	for version, name := range first {
		all = append(all, name+" is "+version)
	}
	slices.Sort(all)
	return fmt.Errorf("several versions of iPXE are mixed (%s): keep each in a folder of its own", strings.Join(all, ", "))
}

// eachFile calls f for each regular file of the archive control.tar.* or
// data.tar.*.
func eachFile(members map[string][]byte, archive string, f func(name string, r io.Reader, size int64) error) error {
	for suffix, open := range decompressors {
		packed, ok := members[archive+".tar"+suffix]
		if !ok {
			continue
		}
		plain, err := open(packed)
		if err != nil {
			return fmt.Errorf("unpack %s.tar%s: %w", archive, suffix, err)
		}
		limited := &limitReader{r: plain, left: maxDeb}
		if err := walkTar(limited, f); err != nil {
			return fmt.Errorf("unpack %s.tar%s: %w", archive, suffix, err)
		}
		return nil
	}
	return fmt.Errorf("no %s.tar packed with xz, zstd or gzip is in it: want a Debian package (.deb)", archive)
}

func walkTar(r io.Reader, f func(name string, r io.Reader, size int64) error) error {
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := f(h.Name, archive, h.Size); err != nil {
			return err
		}
	}
}

// decompressors are by suffix. None allocates more than its dictionary.
var decompressors = map[string]func([]byte) (io.Reader, error){
	".xz": func(b []byte) (io.Reader, error) { return xz.NewReader(bytes.NewReader(b), maxDictionary) },
	".gz": func(b []byte) (io.Reader, error) { return gzip.NewReader(bytes.NewReader(b)) },
	".zst": func(b []byte) (io.Reader, error) {
		return zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxDictionary), zstd.WithDecoderMaxMemory(maxDeb))
	},
}

// limitReader fails, other than io.LimitReader, when there is more.
type limitReader struct {
	r    io.Reader
	left int
}

func (l *limitReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.left -= n
	if l.left < 0 {
		return 0, fmt.Errorf("it unpacks to more than %d bytes", maxDeb)
	}
	return n, err
}

// readAll reads a file of the size that its header says.
func readAll(name string, r io.Reader, size, limit int64) ([]byte, error) {
	if size > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", name, size, limit)
	}
	data, err := io.ReadAll(io.LimitReader(r, limit)) // grows as it is read: the size may be a lie
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}
