package main

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSaveIntoWhatIsNoFile has devices in mind, which take root to make: a pipe
// stands for them.
func TestSaveIntoWhatIsNoFile(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	// Held open at both ends, so that nobody waits.
	r, err := os.OpenFile(pipe, os.O_RDWR, 0)
	require.NoError(t, err)
	defer func() { _ = r.Close() }()
	to, err := save(pipe, setFile{Name: "rack1.iso"}, []byte("an image"), false)
	require.NoError(t, err)
	require.Equal(t, pipe, to)
	st, err := os.Lstat(pipe)
	require.NoError(t, err)
	require.Equal(t, os.ModeNamedPipe, st.Mode().Type(), "it was replaced by a file")
	got := make([]byte, 8)
	_, err = io.ReadFull(r, got)
	require.NoError(t, err)
	require.Equal(t, "an image", string(got))
}

func TestSaveFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	file, link, lost := filepath.Join(dir, "tftp", "rack1.efi"), filepath.Join(dir, "link"), filepath.Join(dir, "lost")
	require.NoError(t, os.Mkdir(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte("old"), 0o644))
	require.NoError(t, os.Symlink(file, link))
	require.NoError(t, os.Symlink(filepath.Join(dir, "gone"), lost))
	_, err := save(link, setFile{Name: "rack1.efi", HoldsKey: true}, []byte("new"), true)
	require.NoError(t, err)
	st, err := os.Lstat(link)
	require.NoError(t, err)
	require.Equal(t, os.ModeSymlink, st.Mode().Type())
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "new", string(data))
	st, err = os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm(), "it holds a key now")
	_, err = save(lost, setFile{Name: "rack1.efi"}, []byte("new"), true)
	require.ErrorIs(t, err, os.ErrNotExist, "a link that points nowhere")
	_, err = os.Readlink(lost)
	require.NoError(t, err, "it is still a link")
}
