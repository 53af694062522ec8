package ignition

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/cavaliergopher/cpio"
	"github.com/stretchr/testify/require"
)

func initrd(t *testing.T) (archive, pointer []byte) {
	pointer, err := Pointer(pointerURL, grant, read(t, "root.pem"))
	require.NoError(t, err)
	archive, err = Initrd(pointer)
	require.NoError(t, err)
	return archive, pointer
}

func TestInitrd(t *testing.T) {
	archive, pointer := initrd(t)
	var listing []string
	r := cpio.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Zero(t, h.ModTime.Unix())
		body, err := io.ReadAll(r)
		require.NoError(t, err)
		listing = append(listing, fmt.Sprintf("%d %o %d:%d %d %s", h.Inode, uint32(h.Mode), h.Uid, h.Guid, h.Links, h.Name))
		if h.Mode.IsRegular() {
			require.Equal(t, string(pointer), string(body))
		}
	}
	require.Equal(t, []string{
		"1 40755 0:0 2 usr",
		"2 40755 0:0 2 usr/share",
		"3 40755 0:0 2 usr/share/oem",
		"4 100600 0:0 1 usr/share/oem/config.ign",
	}, listing)
}

func TestInitrdIsReproducibleAndPadded(t *testing.T) {
	one, pointer := initrd(t)
	two, err := Initrd(pointer)
	require.NoError(t, err)
	require.Equal(t, one, two)
	require.Zero(t, len(one)%512)
}

// unpack walks archives as the kernel's init/initramfs.c does: zeros are skipped, headers stand at multiples of four.
func unpack(t *testing.T, raw []byte) (names []string) {
	hex := func(field []byte) int {
		n, err := strconv.ParseUint(string(field), 16, 32)
		require.NoError(t, err)
		return int(n)
	}
	for at := 0; at < len(raw); {
		if raw[at] == 0 {
			at++
			continue
		}
		require.Zero(t, at%4, "archive at offset %d", at)
		require.Equal(t, "070701", string(raw[at:at+6]))
		size, nameSize := hex(raw[at+54:at+62]), hex(raw[at+94:at+102])
		names = append(names, string(raw[at+110:at+110+nameSize-1]))
		at += (110 + nameSize + 3) &^ 3
		at += (size + 3) &^ 3
	}
	return names
}

func TestInitrdFollowsAnother(t *testing.T) {
	archive, _ := initrd(t)
	one := []string{"usr", "usr/share", "usr/share/oem", "usr/share/oem/config.ign", "TRAILER!!!"}
	require.Equal(t, one, unpack(t, archive))
	require.Equal(t, append(one, one...), unpack(t, append(bytes.Clone(archive), archive...)))
}

// A second reader than the library that wrote it, and over what an image brought before.
func TestInitrdUnpacksOverAnother(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "usr/share/oem/config.ign")
	require.NoError(t, os.MkdirAll(filepath.Dir(old), 0o755))
	require.NoError(t, os.WriteFile(old, []byte("of the image"), 0o644))

	archive, pointer := initrd(t)
	cmd := exec.Command(tool(t, "busybox"), "cpio", "-idu")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(archive)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	got, err := os.ReadFile(old)
	require.NoError(t, err)
	require.Equal(t, string(pointer), string(got))
	info, err := os.Stat(old)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}

func TestInitrdRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ pointer, want string }{
		"nothing":    {"", "not a valid ignition 3.3.0 config: not a config (empty)"},
		"no JSON":    {"{", "not a valid ignition 3.3.0 config: unexpected end of JSON input"},
		"newer spec": {`{"ignition": {"version": "3.4.0"}}`, "not a valid ignition 3.3.0 config: unsupported config version"},
		"typing error": {
			`{"ignition": {"version": "3.3.0", "confg": {}}}`,
			"not a valid ignition 3.3.0 config: line 1, column 35: $.ignition.confg: unused key confg",
		},
	} {
		t.Run(name, func(t *testing.T) {
			archive, err := Initrd([]byte(tt.pointer))
			require.EqualError(t, err, "make initrd: "+tt.want)
			require.Empty(t, archive)
		})
	}
}
