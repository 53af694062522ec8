package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func write(t *testing.T, path, content string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	return path
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	kernel := write(t, filepath.Join(dir, "vmlinuz"), "kernel")
	a := write(t, filepath.Join(dir, "a/initrd"), "first")
	b := write(t, filepath.Join(dir, "b/initrd"), "second")
	img, err := Open(t.Context(), Spec{Name: "lab", Kernel: kernel, Initrds: []string{a, b}})
	require.NoError(t, err)
	defer func() { require.NoError(t, img.Close()) }()

	f, isKernel, ok := img.File("vmlinuz")
	require.True(t, ok)
	require.True(t, isKernel)
	require.EqualValues(t, 6, f.Size)
	sum := sha256.Sum256([]byte("kernel"))
	require.Equal(t, hex.EncodeToString(sum[:]), f.SHA256)

	f, isKernel, ok = img.File("1-initrd")
	require.True(t, ok, "two initrds of one name are kept apart")
	require.False(t, isKernel)
	require.Equal(t, "second", read(t, f))
	require.Equal(t, "second", read(t, f), "each reader has an offset of its own")

	for _, name := range []string{"", "initrd", "../vmlinuz", "2-initrd"} {
		_, _, ok = img.File(name)
		require.False(t, ok, "%q", name)
	}
}

func TestReplacedFileGoesOnAsItWas(t *testing.T) {
	dir := t.TempDir()
	kernel := write(t, filepath.Join(dir, "vmlinuz"), "old kernel")
	img, err := Open(t.Context(), Spec{Name: "lab", Kernel: kernel})
	require.NoError(t, err)
	defer func() { require.NoError(t, img.Close()) }()
	require.NoError(t, os.Rename(write(t, filepath.Join(dir, "new"), "new kernel"), kernel))
	require.Equal(t, "old kernel", read(t, img.Kernel), "what was digested is what is served")
	require.NoError(t, os.Remove(kernel))
	require.Equal(t, "old kernel", read(t, img.Kernel))
}

func TestFileChangedInPlaceIsNotServed(t *testing.T) {
	kernel := write(t, filepath.Join(t.TempDir(), "vmlinuz"), "kernel")
	img, err := Open(t.Context(), Spec{Name: "lab", Kernel: kernel})
	require.NoError(t, err)
	defer func() { require.NoError(t, img.Close()) }()
	require.NoError(t, os.WriteFile(kernel, []byte("KERNEL"), 0o644))
	require.NoError(t, os.Chtimes(kernel, time.Time{}, time.Now().Add(time.Second)))
	_, err = img.Kernel.Reader()
	require.ErrorContains(t, err, "was changed in place")
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	good := write(t, filepath.Join(dir, "vmlinuz"), "kernel")
	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	empty := write(t, filepath.Join(dir, "empty"), "")
	for name, tt := range map[string]struct {
		spec Spec
		want string
	}{
		"missing kernel": {Spec{Name: "lab", Kernel: filepath.Join(dir, "gone")}, "image lab: kernel: open " + filepath.Join(dir, "gone")},
		"missing initrd": {Spec{Name: "lab", Kernel: good, Initrds: []string{filepath.Join(dir, "gone")}}, "image lab: initrd:"},
		"pipe":           {Spec{Name: "lab", Kernel: pipe}, "not a regular file"},
		"directory":      {Spec{Name: "lab", Kernel: dir}, "not a regular file"},
		"empty":          {Spec{Name: "lab", Kernel: empty}, "the file is empty"},
		"name":           {Spec{Name: "../lab", Kernel: good}, "image name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(t.Context(), tt.spec)
			require.ErrorContains(t, err, tt.want)
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Open(ctx, Spec{Name: "lab", Kernel: good})
	require.ErrorIs(t, err, context.Canceled)
}

func read(t *testing.T, f *File) string {
	t.Helper()
	r, err := f.Reader()
	require.NoError(t, err)
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(data)
}
