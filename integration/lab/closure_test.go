package lab

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseDepends(t *testing.T) {
	tests := []struct {
		modinfo string
		want    []string
	}{
		{"license=GPL\x00depends=virtio,virtio_ring\x00name=virtio_pci\x00", []string{"virtio", "virtio_ring"}},
		{"depends=\x00name=virtio_ring\x00", nil},
		{"name=old\x00softdepends=no", nil},
		{"", nil},
	}
	for _, tt := range tests {
		require.Equal(t, tt.want, parseDepends([]byte(tt.modinfo)), "%q", tt.modinfo)
	}
}

func FuzzParseDepends(f *testing.F) {
	f.Fuzz(func(t *testing.T, modinfo []byte) {
		for _, name := range parseDepends(modinfo) {
			require.NotContains(t, name, ",")
			require.NotContains(t, name, "\x00")
		}
	})
}

func TestLoadOrder(t *testing.T) {
	m := needMaterials(t)
	dir, err := m.one("lib/modules/*")
	require.NoError(t, err)
	order, err := loadOrder(dir, "virtio_net", "virtio_pci")
	require.NoError(t, err)
	for i, path := range order {
		depends, err := moduleDepends(path)
		require.NoError(t, err)
		for _, d := range depends {
			require.True(t, slices.ContainsFunc(order[:i], func(p string) bool {
				return filepath.Base(p) == d+".ko"
			}), "%s before %s", d, path)
		}
	}
	_, err = loadOrder(dir, "no_such_module")
	require.ErrorContains(t, err, "no_such_module: not in")
}

func TestLibraries(t *testing.T) {
	m := needMaterials(t)
	found, err := libraries(m.libraryDirs(), filepath.Join(m.root(), "usr/bin/curl"))
	require.NoError(t, err)
	var names []string
	for _, path := range found {
		require.FileExists(t, path)
		names = append(names, filepath.Base(path))
	}
	require.Subset(t, names, []string{"libcurl.so.4", "libssl.so.3", "libc.so.6", "ld-linux-x86-64.so.2"})

	_, err = libraries([]string{t.TempDir()}, filepath.Join(m.root(), "usr/bin/curl"))
	require.ErrorContains(t, err, "curl needs")
	_, err = libraries(nil, "enter.go")
	require.ErrorContains(t, err, "read enter.go")
}
