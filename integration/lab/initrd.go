package lab

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/cavaliergopher/cpio"
)

// initrd writes a newc archive as the kernel unpacks it. The kernel makes no missing folder, so each path brings its
// own. After the first error all further calls do nothing and close returns it.
type initrd struct {
	w    *cpio.Writer
	dirs map[string]bool
	err  error
}

func newInitrd(w io.Writer) *initrd {
	return &initrd{w: cpio.NewWriter(w), dirs: map[string]bool{".": true}}
}

func (i *initrd) add(name string, mode cpio.FileMode, content []byte) {
	i.entry(name, cpio.TypeReg|mode, content)
}

// link adds a symbolic link: its target is the entry's content.
func (i *initrd) link(name, target string) {
	i.entry(name, cpio.TypeSymlink|0o777, []byte(target))
}

// copy adds the file that source leads to, executable.
func (i *initrd) copy(name, source string) {
	if i.err != nil {
		return
	}
	content, err := os.ReadFile(source)
	if err != nil {
		i.err = fmt.Errorf("add %s: %w", name, err)
		return
	}
	i.add(name, 0o755, content)
}

func (i *initrd) entry(name string, mode cpio.FileMode, content []byte) {
	dir := filepath.Dir(name)
	if !i.dirs[dir] {
		i.dirs[dir] = true
		i.entry(dir, cpio.TypeDir|0o755, nil)
	}
	if i.err != nil {
		return
	}
	// Times are those of 1970: the guest tells what Ignition wrote by its being newer.
	header := cpio.Header{Name: name, Mode: mode, Links: 1, Size: int64(len(content)), ModTime: time.Unix(0, 0)}
	if err := i.w.WriteHeader(&header); err != nil {
		i.err = fmt.Errorf("add %s: %w", name, err)
		return
	}
	if _, err := i.w.Write(content); err != nil {
		i.err = fmt.Errorf("add %s: %w", name, err)
	}
}

func (i *initrd) close() error {
	if i.err != nil {
		return i.err
	}
	if err := i.w.Close(); err != nil {
		return fmt.Errorf("end the archive: %w", err)
	}
	return nil
}
