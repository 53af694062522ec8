package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/nestboot/nestboot/integration/lab"
)

var update = flag.Bool("update", false, "write the golden files anew")

// noise is n bytes that are always the same and never repeat.
func noise(n int, seed byte) []byte {
	out := make([]byte, 0, n+sha256.Size)
	sum := sha256.Sum256([]byte{seed})
	for len(out) < n {
		out = append(out, sum[:]...)
		sum = sha256.Sum256(sum[:])
	}
	return out[:n]
}

// fakeIsolinux looks like isolinux.bin to all but a BIOS.
func fakeIsolinux() []byte {
	b := noise(38914, 1) // not a multiple of 4: the checksum has a last word to fill up
	copy(b[bootInfoEnd:], isolinuxMarker)
	return b
}

// config has all that matters: BIOS and UEFI, folders, empty files, files that
// end at and behind a sector, long names.
func config() Config {
	return Config{
		Label: "RACK1", ID: [16]byte{1, 2, 3}, Isolinux: fakeIsolinux(), MBR: noise(bootCodeSize, 2),
		ISO: []File{
			{Path: "isolinux.cfg", Data: []byte("DEFAULT ipxe\n")},
			{Path: "ipxe.lkrn", Data: noise(350_001, 3)},
			{Path: "script", Data: nil},
			{Path: "boot/modules/ldlinux.c32", Data: noise(2048, 4)},
		},
		ESP: []File{
			{Path: "EFI/BOOT/BOOTX64.EFI", Data: noise(1_000_000, 5)},
			{Path: "EFI/BOOT/BOOTAA64.EFI", Data: noise(4096, 6)},
			{Path: "EFI/BOOT/autoexec.ipxe", Data: []byte("#!ipxe\n")},
			{Path: "EFI/BOOT/autoexec.ipxe-with-a-name-of-exactly-52-characters", Data: nil},
			{Path: "EFI/ipxe.efi", Data: noise(2049, 7)},
		},
	}
}

func image(t testing.TB, c Config) []byte {
	t.Helper()
	b, err := Write(c)
	require.NoError(t, err)
	return b
}

// byPath is files as a map.
func byPath(files []File) map[string]string {
	m := map[string]string{}
	for _, f := range files {
		m[f.Path] = string(f.Data)
	}
	return m
}

func TestWriteReadsBack(t *testing.T) {
	c := config()
	b := image(t, c)
	require.Zero(t, len(b)%mib)
	got, err := Read(b)
	require.NoError(t, err)
	require.Equal(t, c.Label, got.Label)
	require.True(t, got.BIOS)
	require.Equal(t, byPath(c.ISO), byPath(got.ISO))
	require.Equal(t, byPath(c.ESP), byPath(got.ESP))
	require.Len(t, got.ISO, len(c.ISO))
	require.Len(t, got.ESP, len(c.ESP))
	_, err = Read(append(b, make([]byte, mib)...))
	require.NoError(t, err, "a disk larger than the image")
}

func TestWriteWithoutBIOS(t *testing.T) {
	c := config()
	c.Isolinux, c.MBR, c.ISO = nil, nil, nil
	b := image(t, c)
	require.Equal(t, make([]byte, mbrSerial), b[:mbrSerial], "no boot code, and nothing for it to find")
	require.Equal(t, make([]byte, 48), b[mbrEntry+16:510], "no entry but the protective one")
	got, err := Read(b)
	require.NoError(t, err)
	require.False(t, got.BIOS)
	require.Empty(t, got.ISO)
	require.Equal(t, byPath(c.ESP), byPath(got.ESP))
}

// TestWriteGolden fails when any byte of an image changes.
func TestWriteGolden(t *testing.T) {
	c := config()
	before := config()
	sum := sha256.Sum256(image(t, c))
	require.Equal(t, before, c, "the caller's files stay as they are")
	got := hex.EncodeToString(sum[:]) + "\n"
	if *update {
		require.NoError(t, os.WriteFile("testdata/image.sha256", []byte(got), 0o644))
	}
	want, err := os.ReadFile("testdata/image.sha256")
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestWriteSameInputSameBytes(t *testing.T) {
	first := image(t, config())
	require.True(t, bytes.Equal(first, image(t, config())))
	c := config()
	c.ISO[0], c.ISO[3] = c.ISO[3], c.ISO[0]
	c.ESP[0], c.ESP[4] = c.ESP[4], c.ESP[0]
	require.True(t, bytes.Equal(first, image(t, c)), "the order of files does not count")
	c.ID[15] = 1
	require.False(t, bytes.Equal(first, image(t, c)), "the ID is in the numbers")
}

func TestWriteRefuses(t *testing.T) {
	esp := func(path string, size int) func(*Config) {
		return func(c *Config) { c.ESP = append(c.ESP, File{Path: path, Data: make([]byte, size)}) }
	}
	iso := func(path string, size int) func(*Config) {
		return func(c *Config) { c.ISO = append(c.ISO, File{Path: path, Data: make([]byte, size)}) }
	}
	for name, tt := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no label":            {func(c *Config) { c.Label = "" }, "label"},
		"lower-case label":    {func(c *Config) { c.Label = "rack1" }, "label"},
		"long label":          {func(c *Config) { c.Label = strings.Repeat("A", 33) }, "label"},
		"no EFI":              {func(c *Config) { c.ESP = nil }, "want EFI/BOOT/BOOTX64.EFI"},
		"no boot code":        {func(c *Config) { c.MBR = nil }, "isohdpfx.bin has 0 bytes"},
		"no isolinux":         {func(c *Config) { c.Isolinux = nil }, "isolinux.bin is missing"},
		"other isolinux":      {func(c *Config) { c.Isolinux = noise(40000, 9) }, "package isolinux"},
		"isolinux given":      {iso("isolinux.bin", 1), `"isolinux.bin": the name is taken`},
		"upper case in ISO":   {iso("IPXE.LKRN", 1), "want up to 30"},
		"two dots in ISO":     {iso("a.b.c", 1), "want up to 30"},
		"long name in ISO":    {iso(strings.Repeat("a", 31), 1), "want up to 30"},
		"twice":               {iso("ipxe.lkrn", 1), "the name is taken"},
		"twice, other case":   {esp("efi/boot/bootx64.efi", 1), "the name is taken"},
		"file as folder":      {esp("EFI/ipxe.efi/x", 1), "the name is taken"},
		"folder as file":      {esp("EFI/BOOT", 1), "the name is taken"},
		"up":                  {esp("../x", 1), "no dot at the ends"},
		"absolute":            {esp("/x", 1), "want up to 64"},
		"no name":             {esp("", 1), "want up to 64"},
		"backslash":           {esp(`EFI\x`, 1), "want up to 64"},
		"too deep":            {esp("1/2/3/4/5/6/7/8/x", 1), "more than 7 folders"},
		"EFI too large":       {esp("x", 32*mib), "want less than 32 MiB together"},
		"all too large":       {iso("x", MaxSize), "more than an image"},
		"just too large":      {iso("x", MaxSize-2*mib), "image of"},
		"too many files":      {func(c *Config) { many(&c.ISO, maxEntries) }, "more than 512 files"},
		"too many at the top": {func(c *Config) { many(&c.ESP, 300) }, "more files and folders at the top"},
	} {
		t.Run(name, func(t *testing.T) {
			c := config()
			tt.change(&c)
			_, err := Write(c)
			require.ErrorContains(t, err, tt.want)
		})
	}
	_, err := Write(Config{})
	require.ErrorContains(t, err, "label")
	require.ErrorContains(t, err, "BOOTX64.EFI", "all faults at once")
}

func many(files *[]File, n int) {
	for i := range n {
		*files = append(*files, File{Path: fmt.Sprintf("f%d.x", i)})
	}
}

// TestWriteSizes takes the EFI system partition over the limits of cluster
// sizes, and the number of files of an ISO folder over those of sectors.
func TestWriteSizes(t *testing.T) {
	for size := 1 * mib; size < 31*mib; size += 1300 * 1021 {
		c := config()
		c.ESP[0].Data = make([]byte, size)
		many(&c.ISO, size/mib*10)
		got, err := Read(image(t, c))
		require.NoError(t, err, size)
		require.Len(t, got.ESP[0].Data, 4096)
		require.Len(t, got.ESP[1].Data, size)
		require.Equal(t, byPath(c.ISO), byPath(got.ISO), size)
	}
}

func TestWriteReadsBackAnything(t *testing.T) {
	files := func(t *rapid.T, name, part string) []File {
		path := rapid.StringMatching(part + `(/` + part + `){0,3}`)
		data := rapid.SliceOfN(rapid.Byte(), 0, 5000)
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) File {
			return File{Path: path.Draw(t, "path"), Data: data.Draw(t, "data")}
		}), 1, 30).Draw(t, name)
	}
	rapid.Check(t, func(t *rapid.T) {
		c := Config{
			Label: rapid.StringMatching(`[A-Z0-9_]{1,32}`).Draw(t, "label"),
			ISO:   files(t, "iso", `[a-z0-9_]{1,12}(\.[a-z0-9_]{1,4})?`),
			ESP:   files(t, "esp", `[A-C0_]{1,12}(\.[A-C]{1,4}){0,2}`),
		}
		b, err := Write(c)
		if err != nil {
			require.ErrorContains(t, err, "the name is taken")
			return
		}
		got, err := Read(b)
		require.NoError(t, err)
		require.Equal(t, c.Label, got.Label)
		require.Equal(t, byPath(c.ISO), byPath(got.ISO))
		require.Equal(t, byPath(c.ESP), byPath(got.ESP))
	})
}

// real is an image's content as machines boot it: isolinux and iPXE.
func real(t testing.TB) Config {
	t.Helper()
	m := lab.Need(t)
	read := func(name string) []byte {
		for _, dir := range append(m.SyslinuxDirs(), m.IPXEDir()) {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
				return b
			}
		}
		require.FailNow(t, name+" is missing in the lab's materials (make deps)")
		return nil
	}
	script := []byte("#!ipxe\necho hello\n")
	return Config{
		Label: "RACK1", ID: [16]byte{1}, Isolinux: read("isolinux.bin"), MBR: read("isohdpfx.bin"),
		ISO: []File{
			{Path: "isolinux.cfg", Data: []byte("SERIAL 0 115200\nDEFAULT ipxe\nLABEL ipxe\n  KERNEL ipxe.lkrn\n  INITRD script.ipxe\n")},
			{Path: "ldlinux.c32", Data: read("ldlinux.c32")},
			{Path: "ipxe.lkrn", Data: read("ipxe.lkrn")},
			{Path: "script.ipxe", Data: script},
		},
		ESP: []File{
			{Path: "EFI/BOOT/BOOTX64.EFI", Data: read("ipxe-amd64.efi")},
			{Path: "EFI/BOOT/BOOTAA64.EFI", Data: read("ipxe-arm64.efi")},
			{Path: "EFI/BOOT/autoexec.ipxe", Data: script},
		},
	}
}

func BenchmarkWrite(b *testing.B) {
	c := config()
	c.ESP[0].Data, c.ESP[1].Data = noise(2*mib, 5), noise(2*mib, 6)
	b.SetBytes(int64(len(image(b, c))))
	b.ReportAllocs()
	for b.Loop() {
		image(b, c)
	}
}

func BenchmarkRead(b *testing.B) {
	data := image(b, config())
	b.ReportAllocs()
	for b.Loop() {
		_, err := Read(data)
		require.NoError(b, err)
	}
}
