package ignition

import (
	"bytes"
	"fmt"

	"github.com/cavaliergopher/cpio"
)

// initrdBlock pads the archive as cpio(1) pads its own, and keeps whatever follows it aligned: the kernel wants the
// next archive at a multiple of 4 (Documentation/driver-api/early-userspace/buffer-format).
const initrdBlock = 512

// Initrd wraps a config made by Pointer into an uncompressed newc cpio archive with the one file that Flatcar reads
// when booted with flatcar.first_boot=1: usr/share/oem/config.ign. The archive is appended to the image's initrd,
// over which the kernel unpacks it; it brings its directories, since the kernel makes none. Equal input gives equal
// bytes: times are 0 and inodes are counted.
func Initrd(pointer []byte) ([]byte, error) {
	if err := check(pointer, spec33); err != nil {
		return nil, fmt.Errorf("make initrd: %w", err)
	}
	const dir, file = cpio.TypeDir | 0o755, cpio.TypeReg | 0o600
	var out bytes.Buffer
	w := cpio.NewWriter(&out)
	for _, h := range []cpio.Header{
		{Name: "usr", Inode: 1, Mode: dir, Links: 2},
		{Name: "usr/share", Inode: 2, Mode: dir, Links: 2},
		{Name: "usr/share/oem", Inode: 3, Mode: dir, Links: 2},
		{Name: "usr/share/oem/config.ign", Inode: 4, Mode: file, Links: 1, Size: int64(len(pointer))},
	} {
		if err := w.WriteHeader(&h); err != nil {
			return nil, fmt.Errorf("make initrd: %s: %w", h.Name, err)
		}
	}
	if _, err := w.Write(pointer); err != nil {
		return nil, fmt.Errorf("make initrd: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("make initrd: %w", err)
	}
	out.Write(make([]byte, (initrdBlock-out.Len()%initrdBlock)%initrdBlock))
	return out.Bytes(), nil
}
