package ipxebuild

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// debianFolder is a folder that one of Debian's packages fills.
type debianFolder struct {
	pkg, dir string
	file     string // that says that the package is installed: ipxe-qemu has the same folder as ipxe
}

func debianFolders() []debianFolder {
	return []debianFolder{
		{"ipxe", "usr/lib/ipxe", nameKPXE},
		{"pxelinux", "usr/lib/PXELINUX", namePXELinux},
		{"isolinux", "usr/lib/ISOLINUX", nameIsolinux},
		{"syslinux-common", "usr/lib/syslinux/modules/bios", nameLDLinux},
	}
}

// DebianBases are the folders of Debian's packages ipxe, pxelinux, isolinux
// and syslinux-common, as far as they are installed below root.
func DebianBases(root string) []string {
	var dirs []string
	for _, f := range debianFolders() {
		dir := filepath.Join(root, f.dir)
		if st, err := os.Stat(filepath.Join(dir, f.file)); err == nil && st.Mode().IsRegular() {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// ReadPath reads a .deb by ReadDeb, or a folder by ReadDir. Of a folder of
// DebianBases, whatever its root, it adds what the system knows of the package
// that filled it: its terms, and its name and version if these are of that
// version still.
func ReadPath(path string) (Bundle, error) {
	// A pipe must not hold up the caller.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return Bundle{}, fmt.Errorf("%w: name a .deb file or a folder of stock iPXE binaries", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	st, err := f.Stat()
	if err != nil {
		return Bundle{}, fmt.Errorf("stat: %w", err)
	}
	switch {
	case st.IsDir():
		return readFolder(path)
	case !st.Mode().IsRegular() || !strings.HasSuffix(path, ".deb"):
		return Bundle{}, fmt.Errorf("%s is neither a .deb file nor a folder", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxDeb+1)) // what is larger, ReadDeb refuses
	if err != nil {
		return Bundle{}, fmt.Errorf("read %s: %w", path, err)
	}
	return ReadDeb(filepath.Base(path), data)
}

func readFolder(path string) (Bundle, error) {
	b, err := ReadDir(path, os.DirFS(path))
	if err != nil {
		return b, err
	}
	clean, err := filepath.Abs(path)
	if err != nil {
		return Bundle{}, fmt.Errorf("read folder %s: %w", path, err)
	}
	for _, f := range debianFolders() {
		if root, ok := strings.CutSuffix(clean, "/"+f.dir); ok {
			if err := b.addPackage(os.DirFS(root+"/"), f.pkg); err != nil {
				return Bundle{}, fmt.Errorf("what Debian knows of folder %s: %w", path, err)
			}
		}
	}
	return b, nil
}

// addPackage adds what the system below root knows of an installed package.
// Neither file has to be there: images of systems are built without them.
func (b *Bundle) addPackage(root fs.FS, pkg string) error {
	if len(b.License) == 0 {
		terms, err := readIfThere(root, "usr/share/doc/"+pkg+"/"+copyrightName, maxText)
		if err != nil {
			return err
		}
		b.License = terms
	}
	status, err := readIfThere(root, "var/lib/dpkg/status", maxStatus)
	if err != nil {
		return err
	}
	c, ok := installed(status, pkg)
	if !ok || !b.isOf(c.version) {
		return nil
	}
	b.Origin.Package, b.Origin.Version = c.name, c.version
	b.Origin.License = ""
	b.describe(fmt.Sprintf("Debian source package %s; ", c.source))
	return nil
}

// maxStatus bounds dpkg's list of installed packages; a desktop's has 5 MB.
const maxStatus = 64 << 20

// isOf reports whether no binary says that it is of another version than the
// package.
func (b *Bundle) isOf(version string) bool {
	for _, x := range b.Bases {
		if x.Version != "" && x.Version != version {
			return false
		}
	}
	return true
}

// installed finds a package in dpkg's status file: paragraphs with an empty
// line between.
func installed(status []byte, pkg string) (control, bool) {
	for paragraph := range strings.SplitSeq(string(status), "\n\n") {
		if !strings.HasPrefix(paragraph, "Package: "+pkg+"\n") || !strings.Contains(paragraph, "\nStatus: install ok installed\n") {
			continue
		}
		c, err := readControl([]byte(paragraph))
		return c, err == nil
	}
	return control{}, false
}

// readIfThere is nil for a file that is not there.
func readIfThere(root fs.FS, name string, limit int64) (data []byte, err error) {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return readAll(name, f, st.Size(), limit)
}
