package lab

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/cavaliergopher/cpio"
	"github.com/stretchr/testify/require"
)

// entry is what the tests look at in an archive.
type entry struct {
	Name    string
	Mode    cpio.FileMode
	Content string
}

func entries(t *testing.T, archive io.Reader) []entry {
	t.Helper()
	var list []entry
	r := cpio.NewReader(archive)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		require.NoError(t, err)
		content := []byte(h.Linkname)
		if len(content) == 0 {
			content, err = io.ReadAll(r)
			require.NoError(t, err)
		}
		list = append(list, entry{h.Name, h.Mode, string(content)})
	}
}

func TestInitrdBringsItsFolders(t *testing.T) {
	var archive bytes.Buffer
	out := newInitrd(&archive)
	out.add("init", 0o755, []byte("#!/bin/sh\n"))
	out.add("usr/share/x", 0o644, nil)
	out.link("usr/lib", "/sysroot/usr/lib")
	require.NoError(t, out.close())
	require.Equal(t, []entry{
		{"init", cpio.TypeReg | 0o755, "#!/bin/sh\n"},
		{"usr", cpio.TypeDir | 0o755, ""},
		{"usr/share", cpio.TypeDir | 0o755, ""},
		{"usr/share/x", cpio.TypeReg | 0o644, ""},
		{"usr/lib", cpio.TypeSymlink | 0o777, "/sysroot/usr/lib"},
	}, entries(t, &archive))
}

func TestInitrdKeepsFirstError(t *testing.T) {
	out := newInitrd(io.Discard)
	out.copy("bin/x", filepath.Join(t.TempDir(), "absent"))
	out.add("later", 0o644, nil)
	err := out.close()
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "add bin/x")
}
