package ipxebuild

import (
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/lab"
)

func TestReadDir(t *testing.T) {
	m := lab.Need(t)
	for dir, want := range map[string]struct {
		version string
		files   int
	}{
		m.IPXEDir():         {v1, 5},
		m.SyslinuxDirs()[0]: {"6.04-20250413", 1},
		m.SyslinuxDirs()[1]: {"6.04-20250413", 2},
		m.SyslinuxDirs()[2]: {"", 1},
	} {
		b, err := ReadDir(dir, os.DirFS(dir))
		require.NoError(t, err)
		require.Equal(t, want.version, b.Origin.Version, dir)
		require.Equal(t, dir, b.Origin.File)
		require.Len(t, b.Bases, want.files, dir)
	}
}

// TestReadDirReadsWhatReadDebRead is how a store of bases keeps a bundle.
func TestReadDirReadsWhatReadDebRead(t *testing.T) {
	for _, want := range bundles(t)[1:] {
		dir := t.TempDir()
		for _, x := range want.Bases {
			require.NoError(t, os.WriteFile(filepath.Join(dir, x.Name), x.Data, 0o600))
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, copyrightName), want.License, 0o600))
		got, err := ReadDir(dir, os.DirFS(dir))
		require.NoError(t, err)
		got.Origin = want.Origin
		require.Equal(t, want, got)
	}
}

func TestReadDirRefuses(t *testing.T) {
	data := snponly(t, "2.0.0").data
	for name, tt := range map[string]struct {
		fsys fstest.MapFS
		want string
	}{
		"empty":        {fstest.MapFS{}, "no boot program"},
		"a link":       {fstest.MapFS{"snponly.efi": {Mode: os.ModeSymlink, Data: data}}, "no boot program"},
		"a subfolder":  {fstest.MapFS{"a/snponly.efi": {Data: data}}, "no boot program"},
		"two versions": {fstest.MapFS{"snponly.efi": {Data: data}, "ipxe.efi": {Data: snponly(t, "2.0.1").data}}, "keep each in a folder of its own"},
		"too large":    {fstest.MapFS{"ipxe.lkrn": {Data: make([]byte, maxBase+1)}}, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadDir("/bases", tt.fsys)
			require.ErrorContains(t, err, "/bases")
			require.ErrorContains(t, err, tt.want)
		})
	}
	_, err := ReadDir("/missing", os.DirFS("/nonexistent"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
