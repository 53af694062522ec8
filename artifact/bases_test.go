package artifact

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/lab"
)

// imported is the one folder below bases/ that holds iPXE.
func (w *world) imported() string {
	w.t.Helper()
	found, err := filepath.Glob(filepath.Join(w.dir, "bases", "*", "snponly.efi"))
	require.NoError(w.t, err)
	require.Len(w.t, found, 1)
	return filepath.Dir(found[0])
}

// someBases is a folder with iPXE for UEFI alone: what is compressed takes its
// time.
func (w *world) someBases() string {
	w.t.Helper()
	dir := filepath.Join(w.dir, "lib")
	require.NoError(w.t, os.MkdirAll(dir, 0o700))
	for _, name := range []string{"snponly.efi", "ipxe-amd64.efi", "ipxe-arm64.efi"} {
		data, err := os.ReadFile(filepath.Join(lab.Need(w.t).IPXEDir(), name))
		require.NoError(w.t, err)
		require.NoError(w.t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	return dir
}

func TestBasesAreImportedOnceAndStay(t *testing.T) {
	w := newWorld(t)
	w.stock = w.openBases(w.someBases())
	dir := w.imported()
	require.Contains(t, w.log.String(), "boot files were imported")
	before, err := os.Stat(filepath.Join(dir, bundleFile))
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(filepath.Join(w.dir, "bases", importPrefix+"1"), 0o700), "as a killed import leaves it")
	again := w.openBases(w.someBases())
	after, err := os.Stat(filepath.Join(dir, bundleFile))
	require.NoError(t, err)
	require.Equal(t, before.ModTime(), after.ModTime())
	require.NoDirExists(t, filepath.Join(w.dir, "bases", importPrefix+"1"))
	require.True(t, sameStock(w.stock, again))

	s := w.open()
	w.create(s, Spec{Name: "rack1", Exposure: []Protocol{TFTP}})
	w.stock = w.openBases() // the package was removed
	require.NotEmpty(t, w.stock.Versions(), "what was imported stays")
	s = w.open()
	require.Equal(t, Ready, s.List()[0].Status)
}

func TestDamagedBaseIsLeftOut(t *testing.T) {
	w := newWorld(t)
	w.stock = w.openBases(w.someBases())
	s := w.open()
	w.create(s, Spec{Name: "rack1", Exposure: []Protocol{TFTP}})
	path := filepath.Join(w.imported(), "snponly.efi")
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	bad := append([]byte{}, good...)
	bad[len(bad)/2] ^= 1
	for name, damage := range map[string]func(){
		"changed": func() { require.NoError(t, os.WriteFile(path, bad, 0o600)) },
		"cut":     func() { require.NoError(t, os.WriteFile(path, good[:1000], 0o600)) },
		"missing": func() { require.NoError(t, os.Remove(path)) },
	} {
		t.Run(name, func(t *testing.T) {
			damage()
			stock := w.openBases()
			require.Nil(t, stock)
			require.Contains(t, w.log.String(), "remove that folder and reload bootd")
			require.Contains(t, w.log.String(), "there are no iPXE binaries")
			s.UseStock(t.Context(), stock)
			_, err := s.File(t.Context(), "rack1.efi", TFTP)
			require.NoError(t, err, "a set that is served is not taken away")
			_, err = s.Create(t.Context(), Spec{Name: "rack2"})
			require.ErrorContains(t, err, "base: there are no iPXE binaries: install Debian's package ipxe")

			w.stock = stock
			failed := w.open()
			require.Equal(t, Failed, failed.List()[0].Status)
			require.NoError(t, os.WriteFile(path, good, 0o600))
			failed.UseStock(t.Context(), w.openBases())
			require.Equal(t, Ready, failed.List()[0].Status, "served again when its base is there")
			s.UseStock(t.Context(), w.openBases())
		})
	}
}

func TestOtherBytesOfTheSameVersionAreNotMixed(t *testing.T) {
	w := newWorld(t)
	dir := w.someBases()
	first := w.openBases(dir)
	require.NoError(t, os.Remove(filepath.Join(dir, "ipxe-arm64.efi")))
	second := w.openBases(dir)
	require.True(t, sameStock(first, second))
	require.Contains(t, w.log.String(), "boot files differ from those imported before")
}

// TestDefaultBasesNeverStopTheStart: on a machine with QEMU, /usr/lib/ipxe is
// there and holds no boot program.
func TestDefaultBasesNeverStopTheStart(t *testing.T) {
	w := newWorld(t)
	root := t.TempDir()
	write := func(name string, data []byte) {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, data, 0o600))
	}
	write("usr/lib/ipxe/virtio-net.rom", nil)
	require.Empty(t, DefaultBases(t.Context(), root, w.logger()))
	require.Empty(t, w.log.String(), "it is not there, which is no fault")

	write("usr/lib/ipxe/undionly.kpxe", []byte("damaged"))
	for _, dir := range lab.Need(t).SyslinuxDirs() {
		_, below, _ := strings.Cut(dir, "/usr/lib/")
		require.NoError(t, os.CopyFS(filepath.Join(root, "usr/lib", below), os.DirFS(dir)))
	}
	require.Len(t, DefaultBases(t.Context(), root, w.logger()), 3)
	require.Contains(t, w.log.String(), "boot files of an installed package are not used")
	require.Contains(t, w.log.String(), "undionly.kpxe is not a BIOS iPXE")
}

func TestStrayEntriesAmongBasesAreLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.openBases(w.someBases())
	dir := filepath.Join(w.dir, "bases")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "my_notes.txt"), nil, 0o600))
	require.NotNil(t, w.openBases())
	require.NotContains(t, w.log.String(), "level=ERROR")
}

// TestConflictingBasesDoNotStopTheStart: a package and a folder that say they are
// of the same version and differ.
func TestConflictingBasesDoNotStopTheStart(t *testing.T) {
	w := newWorld(t)
	first := w.openBases(w.someBases())
	folder := w.imported()
	other := filepath.Join(t.TempDir(), "other")
	require.NoError(t, os.CopyFS(other, os.DirFS(filepath.Join(w.dir, "lib"))))
	path := filepath.Join(other, "snponly.efi")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, append(data, 0), 0o600))
	second := w.openBases(other)
	require.True(t, sameStock(first, second), "what was there stays in use")
	require.Contains(t, w.log.String(), "boot files are not imported")
	require.Contains(t, w.log.String(), "remove_to_replace="+folder)
	require.NoError(t, os.RemoveAll(folder))
	require.False(t, sameStock(first, w.openBases(other)), "it is in its place then")
}

func TestReadBasesNamesEachFault(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "x.txt"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "x.deb"), []byte("not a package"), 0o600))
	_, err := ReadBases([]string{filepath.Join(dir, "gone"), filepath.Join(dir, "x.txt"), filepath.Join(dir, "x.deb"), dir})
	require.ErrorContains(t, err, "gone: no such file or directory: name a .deb file or a folder")
	require.ErrorContains(t, err, "x.txt is neither a .deb file nor a folder")
	require.ErrorContains(t, err, "x.deb")
	require.ErrorContains(t, err, dir)
}
