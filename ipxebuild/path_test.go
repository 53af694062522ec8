package ipxebuild

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/lab"
)

// system is a root folder with files.
func system(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	return root
}

func TestDebianBases(t *testing.T) {
	require.Empty(t, DebianBases(t.TempDir()))
	root := system(t, map[string]string{"usr/lib/ipxe/virtio-net.rom": "", "usr/lib/ipxe/qemu/pxe-virtio.rom": ""})
	require.Empty(t, DebianBases(root), "ipxe-qemu comes with QEMU and holds no boot program")
	root = system(t, map[string]string{
		"usr/lib/ipxe/undionly.kpxe": "", "usr/lib/PXELINUX/lpxelinux.0": "", "usr/lib/ISOLINUX/isolinux.bin": "",
		"usr/lib/syslinux/modules/bios/ldlinux.c32": "",
	})
	require.Equal(t, []string{
		root + "/usr/lib/ipxe", root + "/usr/lib/PXELINUX", root + "/usr/lib/ISOLINUX", root + "/usr/lib/syslinux/modules/bios",
	}, DebianBases(root))
}

func status(version string) string {
	return "Package: ipxe-qemu\nStatus: install ok installed\nVersion: 1.0.0\n\n" +
		"Package: ipxe\nStatus: install ok installed\nSource: ipxe-source\nVersion: " + version + "\nDescription: boot\n more\n\n" +
		"Package: zlib1g\nStatus: install ok installed\nVersion: 1\n"
}

// TestReadPathKnowsDebiansPackages: who gets a file of a set must be told its
// terms and where its source is, also where the packages are installed.
func TestReadPathKnowsDebiansPackages(t *testing.T) {
	snp := string(snponly(t, "2.0.0-1").data)
	const terms = "Files: *\nLicense: GPL-2+\n"
	for name, tt := range map[string]struct {
		files                         map[string]string
		pkg, version, source, license string // pkg and source empty: as of any folder
	}{
		"installed":        {map[string]string{"usr/share/doc/ipxe/copyright": terms, "var/lib/dpkg/status": status("2.0.0-1")}, "ipxe", "2.0.0-1", "Debian source package ipxe-source 2.0.0-1; iPXE is at https://ipxe.org", terms},
		"no documentation": {map[string]string{"var/lib/dpkg/status": status("2.0.0-1")}, "ipxe", "2.0.0-1", "Debian source package ipxe-source 2.0.0-1; iPXE is at https://ipxe.org", ""},
		"no package":       {map[string]string{"usr/share/doc/ipxe/copyright": terms}, "", "2.0.0-1", "", terms},
		"overwritten":      {map[string]string{"usr/share/doc/ipxe/copyright": terms, "var/lib/dpkg/status": status("2.0.0-2")}, "", "2.0.0-1", "", terms},
		"removed":          {map[string]string{"var/lib/dpkg/status": strings.ReplaceAll(status("2.0.0-1"), "install ok installed", "deinstall ok config-files")}, "", "2.0.0-1", "", ""},
		"damaged":          {map[string]string{"var/lib/dpkg/status": "Package: ipxe\nStatus: install ok installed\nVersion: ?\n"}, "", "2.0.0-1", "", ""},
		"its own terms":    {map[string]string{"usr/lib/ipxe/copyright": "mine", "usr/share/doc/ipxe/copyright": terms}, "", "2.0.0-1", "", "mine"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.files["usr/lib/ipxe/snponly.efi"] = snp
			dir := filepath.Join(system(t, tt.files), "usr/lib/ipxe")
			if tt.pkg == "" {
				tt.pkg, tt.source = dir, "the package that filled "+dir+" on the machine that made this set; iPXE is at https://ipxe.org"
			}
			b, err := ReadPath(dir + "/")
			require.NoError(t, err)
			require.Equal(t, tt.license, string(b.License))
			require.Equal(t, tt.pkg, strings.TrimSuffix(b.Origin.Package, "/"))
			require.Equal(t, tt.version, b.Origin.Version)
			require.Equal(t, tt.source, strings.ReplaceAll(b.Origin.Source, "/ on", " on"))
			require.Equal(t, "iPXE: GPL-2.0-or-later (most of it also UBDL)", b.Origin.License)
			require.Empty(t, b.Origin.SHA256)
		})
	}
}

func TestReadPathRefuses(t *testing.T) {
	root := system(t, map[string]string{"x.txt": "", "x.deb": "not a package"})
	require.NoError(t, syscall.Mkfifo(filepath.Join(root, "pipe.deb"), 0o600))
	large, err := os.Create(filepath.Join(root, "large.deb"))
	require.NoError(t, err)
	require.NoError(t, errors.Join(large.Truncate(maxDeb+1), large.Close()))
	for name, want := range map[string]string{
		"gone":      "no such file or directory: name a .deb file or a folder",
		"x.txt":     "x.txt is neither a .deb file nor a folder",
		"pipe.deb":  "pipe.deb is neither a .deb file nor a folder",
		"x.deb":     "read x.deb: not an ar archive",
		"large.deb": "more than any package",
		".":         "no boot program",
	} {
		_, err := ReadPath(filepath.Join(root, name))
		require.ErrorContains(t, err, want)
	}
	_, err = ReadPath(filepath.Join(root, "gone"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// TestNoticeOfInstalledPackages: the materials lie as Debian installs them.
func TestNoticeOfInstalledPackages(t *testing.T) {
	m := lab.Need(t)
	var all []Bundle
	for _, dir := range append(m.SyslinuxDirs(), m.IPXEDir()) {
		b, err := ReadPath(dir)
		require.NoError(t, err)
		all = append(all, b)
	}
	notice := string(render(t, newSet(t, newStock(t, all...), config(t)), "rack1/NOTICE"))
	require.False(t, strings.Contains(notice, "No copyright file"))
	for _, b := range all {
		require.True(t, len(b.License) > 1000 && strings.Contains(notice, strings.TrimSpace(string(b.License))), b.Origin.File)
	}
}
