package ipxebuild

import (
	"archive/tar"
	"bytes"
	"debug/pe"
	"encoding/binary"
	"hash/crc32"
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func snponly(t testing.TB, version string) entry {
	return entry{name: "./usr/lib/ipxe/snponly.efi", data: efi(t, pe.IMAGE_FILE_MACHINE_AMD64, ipxe(t, version))}
}

func TestReadDeb(t *testing.T) {
	for _, suffix := range []string{".xz", ".gz", ".zst"} {
		t.Run(suffix, func(t *testing.T) {
			b, err := ReadDeb("some/ipxe_9.9.deb", deb(t, suffix, controlText,
				entry{name: "./usr/share/doc/ipxe/copyright", data: []byte("the terms\n")},
				entry{name: "./usr/lib/ipxe/ipxe.efi", kind: tar.TypeSymlink, link: "snponly.efi"},
				entry{name: "./usr/lib/ipxe/ipxe.iso", data: []byte("ignored")},
				entry{name: "./usr/lib/syslinux/modules/efi64/ldlinux.c32", data: []byte("ignored")},
				snponly(t, "9.9-1"),
			))
			require.NoError(t, err)
			require.Len(t, b.Bases, 1)
			require.Equal(t, "snponly.efi", b.Bases[0].Name)
			require.Equal(t, "the terms\n", string(b.License))
			require.Len(t, b.Origin.SHA256, 64)
			b.Origin.SHA256 = ""
			require.Equal(t, Origin{
				Package: "ipxe", Version: "9.9-1", File: "ipxe_9.9.deb",
				License: "iPXE: GPL-2.0-or-later (most of it also UBDL)",
				Source:  "Debian source package ipxe 9.9-1; iPXE is at https://ipxe.org",
			}, b.Origin)
		})
	}
}

func TestReadDebNamesTheSource(t *testing.T) {
	for control, want := range map[string]string{
		"Package: a-b\nVersion: 1:2-3\n":               "Debian source package a-b 1:2-3; iPXE",
		"Package: a-b\nVersion: 2\nSource: cc\n":       "Debian source package cc 2; iPXE",
		"Package: a-b\nVersion: 2\nSource: cc (1.5)\n": "Debian source package cc 1.5; iPXE",
		"Package: a-b\nVersion: 2\nSource: ../x (x)\n": "Debian source package a-b 2; iPXE",
	} {
		b, err := ReadDeb("x.deb", deb(t, ".gz", control, snponly(t, "2.0.0")))
		require.NoError(t, err)
		require.Contains(t, b.Origin.Source, want)
	}
}

func TestReadDebRefuses(t *testing.T) {
	good := deb(t, ".xz", controlText, snponly(t, "2.0.0"))
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"empty":        {nil, "not an ar archive"},
		"text":         {[]byte("#!ipxe\n"), "not an ar archive"},
		"cut short":    {good[:len(good)-10], "cut short"},
		"cut inside":   {ar("debian-binary", []byte("2.0\n")), "no control.tar"},
		"twice":        {ar("a", []byte{}, "a", []byte{}), "there twice"},
		"no data":      {ar("control.tar.gz", pack(t, ".gz", tarOf(t, entry{name: "control", data: []byte(controlText)}))), "no data.tar"},
		"no control":   {deb(t, ".gz", "", snponly(t, "2.0.0")), "control file"},
		"bad name":     {deb(t, ".gz", "Package: ../a\nVersion: 1\n", snponly(t, "2.0.0")), "control file says"},
		"bad version":  {deb(t, ".gz", "Package: a\nVersion: 1/../2\n", snponly(t, "2.0.0")), "control file says"},
		"nothing":      {deb(t, ".gz", controlText, entry{name: "./README", data: []byte("x")}), "no boot program"},
		"not gzip":     {ar("control.tar.gz", []byte("x")), "unpack control.tar.gz"},
		"same name":    {deb(t, ".gz", controlText, snponly(t, "2.0.0"), entry{name: "a/snponly.efi"}), "there twice"},
		"bad binary":   {deb(t, ".gz", controlText, entry{name: "snponly.efi", data: []byte("x")}), "is not a UEFI program"},
		"two versions": {deb(t, ".gz", controlText, snponly(t, "2.0.0"), entry{name: "ipxe.efi", data: efi(t, pe.IMAGE_FILE_MACHINE_AMD64, ipxe(t, "2.0.1"))}), "snponly.efi is 2.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadDeb("x.deb", tt.data)
			require.ErrorContains(t, err, "x.deb")
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestT26_ReadDebRefusesBombs(t *testing.T) {
	for _, suffix := range []string{".xz", ".gz", ".zst"} {
		bomb, err := os.ReadFile("testdata/bomb.tar" + suffix) // a file of 65 MiB of zeros
		require.NoError(t, err)
		require.Less(t, len(bomb), 100<<10)
		control := pack(t, ".gz", tarOf(t, entry{name: "control", data: []byte(controlText)}))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = ReadDeb("bomb.deb", ar("control.tar.gz", control, "data.tar"+suffix, bomb))
		runtime.ReadMemStats(&after)
		require.ErrorContains(t, err, "unpacks to more than", suffix)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(maxDeb), "%s: all that was ever allocated", suffix)
	}
	_, err := ReadDeb("base.deb", deb(t, ".gz", controlText, entry{name: "ipxe.lkrn", data: make([]byte, maxBase+1)}))
	require.ErrorContains(t, err, "more than")
	_, err = ReadDeb("large.deb", make([]byte, maxDeb+1))
	require.ErrorContains(t, err, "more than any package")
}

// TestT26_ReadDebBoundsDictionaries hands over an xz stream whose block asks
// for a dictionary of 1.5 GiB.
func TestT26_ReadDebBoundsDictionaries(t *testing.T) {
	packed := pack(t, ".xz", tarOf(t, entry{name: "control", data: []byte(controlText)}))
	const block = 12 // the block's header, behind that of the stream
	size := 4 * (int(packed[block]) + 1)
	i := bytes.Index(packed[block:block+size], []byte{0x21, 1}) // LZMA2 and one byte: its dictionary
	require.Positive(t, i)
	packed[block+i+2] = 37
	binary.LittleEndian.PutUint32(packed[block+size-4:], crc32.ChecksumIEEE(packed[block:block+size-4]))
	_, err := ReadDeb("dictionary.deb", ar("control.tar.xz", packed))
	require.ErrorContains(t, err, "dictionary size exceeds max")
}

func TestT27_ReadDebFlattensNames(t *testing.T) {
	b, err := ReadDeb("x.deb", deb(t, ".gz", controlText,
		entry{name: "../../../etc/snponly.efi", data: snponly(t, "2.0.0").data},
		entry{name: "/usr/share/doc/../../../copyright", data: []byte("not the terms")}))
	require.NoError(t, err)
	require.Equal(t, "snponly.efi", b.Bases[0].Name)
	require.Empty(t, b.License)
}

func FuzzReadDeb(f *testing.F) {
	for _, suffix := range []string{".xz", ".gz", ".zst"} {
		f.Add(deb(f, suffix, controlText, snponly(f, "2.0.0")))
	}
	f.Add([]byte("!<arch>\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ReadDeb("x.deb", data)
		if err != nil {
			return
		}
		require.NotEmpty(t, b.Bases)
		for _, x := range b.Bases {
			require.Contains(t, kinds, x.Name)
		}
	})
}
