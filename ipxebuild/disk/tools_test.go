package disk

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat12"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/stretchr/testify/require"
)

// What other people's programs and another library make of our images.

// saved is an image in a file, and where its EFI system partition begins.
func saved(t *testing.T, c Config) (path string, esp partition) {
	t.Helper()
	b := image(t, c)
	_, esp, err := readTables(b)
	require.NoError(t, err)
	path = filepath.Join(t.TempDir(), "x.iso")
	require.NoError(t, os.WriteFile(path, b, 0o600))
	return path, esp
}

func TestLibraryAgrees(t *testing.T) {
	c := config()
	path, esp := saved(t, c)
	disk, err := file.OpenFromPath(path, true)
	require.NoError(t, err)
	defer disk.Close()
	info, err := disk.Stat()
	require.NoError(t, err)

	table, err := gpt.Read(disk, block, block)
	require.NoError(t, err)
	require.NoError(t, table.Verify(disk, uint64(info.Size())), "the copy at the end")
	used := table.Partitions[0]
	require.Equal(t, gpt.EFISystemPartition, used.Type)
	require.Equal(t, uint64(esp.first), used.Start)
	require.Equal(t, uint64(esp.last), used.End)
	require.Equal(t, "EFI system partition", used.Name)

	iso, err := iso9660.Read(disk, info.Size(), 0, sector)
	require.NoError(t, err)
	require.Equal(t, c.Label, strings.TrimSpace(iso.Label()))
	for _, f := range c.ISO {
		got, err := iso.OpenFile("/"+strings.ToUpper(f.Path), os.O_RDONLY)
		require.NoError(t, err, f.Path)
		data, err := io.ReadAll(got)
		require.NoError(t, err)
		require.Equal(t, string(f.Data), string(data), f.Path)
	}

	fat, err := fat12.Read(disk, int64(esp.last-esp.first+1)*block, int64(esp.first)*block, block)
	require.NoError(t, err)
	require.Equal(t, c.Label, strings.TrimSpace(fat.Label()))
	for _, f := range c.ESP {
		if len(f.Data) == 0 {
			continue // has no cluster, which FAT wants so and the library calls invalid
		}
		data, err := fat.ReadFile(f.Path)
		require.NoError(t, err, f.Path)
		require.Equal(t, string(f.Data), string(data), f.Path)
	}
}

// TestBootRecords holds what firmware reads first against the formats, byte by byte.
func TestBootRecords(t *testing.T) {
	c := config()
	b := image(t, c)
	le := binary.LittleEndian
	blocks := uint32(len(b) / block)

	require.Equal(t, c.MBR, b[:bootCodeSize])
	require.Equal(t, []byte{0, 0, 2, 0, 0xee, 63, 32, byte(len(b)/mib - 1)}, b[446:454])
	require.Equal(t, []uint32{1, blocks - 1}, []uint32{le.Uint32(b[454:]), le.Uint32(b[458:])})
	require.Equal(t, []byte{0x80, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0}, b[462:478], "active, of no type")
	require.Equal(t, make([]byte, 32), b[478:510])

	for self, other := range map[uint32]uint32{1: blocks - 1, blocks - 1: 1} {
		h := append([]byte{}, b[self*block:][:gptHeaderSize]...)
		crc := le.Uint32(h[16:])
		clear(h[16:20])
		require.Equal(t, crc32.ChecksumIEEE(h), crc)
		require.Equal(t, []uint64{uint64(self), uint64(other)}, []uint64{le.Uint64(h[24:]), le.Uint64(h[32:])})
		require.Equal(t, crc32.ChecksumIEEE(b[le.Uint64(h[72:])*block:][:128*128]), le.Uint32(h[88:]))
		require.Equal(t, uint64(blocks-34), le.Uint64(h[48:]), "last usable block")
	}

	catalog := b[le.Uint32(b[17*sector+71:])*sector:][:sector]
	require.Equal(t, []byte{1, 0}, catalog[:2], "BIOS first")
	require.Equal(t, []byte{0x88, 0, 0, 0, 0, 0, 4, 0}, catalog[32:40])
	require.Equal(t, []byte{0x91, 0xef, 1, 0}, catalog[64:68])
	require.Equal(t, []byte{0x88, 0, 0, 0, 0, 0}, catalog[96:102])
	esp := le.Uint32(catalog[104:]) * 4
	require.Equal(t, le.Uint16(b[esp*block+19:]), le.Uint16(catalog[102:]), "blocks of FAT and of the EFI entry")
	require.Equal(t, esp, le.Uint32(b[esp*block+28:]), "blocks in front of FAT")

	start := le.Uint32(catalog[40:])
	require.Equal(t, uint64(start)*4, le.Uint64(b[432:]), "where isohdpfx.bin looks")
	isolinux := b[start*sector:][:len(c.Isolinux)]
	require.Equal(t, c.Isolinux[:8], isolinux[:8])
	require.Equal(t, c.Isolinux[64:], isolinux[64:])
	require.Equal(t, []uint32{16, start, uint32(len(isolinux))}, []uint32{le.Uint32(isolinux[8:]), le.Uint32(isolinux[12:]), le.Uint32(isolinux[16:])})
}

// TestIsolinuxChecksum takes the checksum that isolinux.bin was built with:
// it is the one of our boot information table.
func TestIsolinuxChecksum(t *testing.T) {
	isolinux := real(t).Isolinux
	require.Equal(t, binary.LittleEndian.Uint32(isolinux[20:]), bootInfoSum(isolinux))
}

// run runs a program and returns what it printed; where it is missing the test
// is skipped, and fails where CI=true.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		for _, dir := range []string{"/usr/sbin", "/sbin"} { // not on every user's path
			if path, err = exec.LookPath(filepath.Join(dir, program)); err == nil {
				break
			}
		}
	}
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

func TestXorrisoReadsWithoutComplaint(t *testing.T) {
	c := real(t)
	path, _ := saved(t, c)
	out := run(t, "xorriso", "-indev", path, "-toc", "-report_el_torito", "plain", "-report_system_area", "plain")
	for _, word := range []string{"WARNING", "FAILURE", "SORRY", "MISHAP", "FATAL"} {
		require.NotContains(t, out, word)
	}
	require.Contains(t, out, "Volume id    : 'RACK1'")
	require.Contains(t, out, "Boot record  : El Torito , MBR isohybrid cyl-align-on GPT")
	require.Contains(t, out, "boot-info-table isohybrid-suitable")
	require.Regexp(t, `El Torito boot img :   1  BIOS  y   none  0x0000  0x00      4 `, out)
	require.Regexp(t, `El Torito boot img :   2  UEFI  y   none  0x0000  0x00 `, out)

	copied := t.TempDir()
	run(t, "xorriso", "-osirrox", "on", "-indev", path, "-extract", "/", copied)
	for _, f := range c.ISO {
		got, err := os.ReadFile(filepath.Join(copied, strings.ToUpper(f.Path)))
		require.NoError(t, err)
		require.Equal(t, string(f.Data), string(got), f.Path)
	}
}

func TestFdiskAgrees(t *testing.T) {
	path, _ := saved(t, real(t))
	out := run(t, "fdisk", "-l", path)
	require.Contains(t, out, "Disklabel type: gpt")
	require.Contains(t, out, "EFI System")
	for _, word := range []string{"mismatch", "corrupt", "not in disk order", "does not start", "backup", "Partition 2"} {
		require.NotContains(t, out, word)
	}
	require.Contains(t, run(t, "sfdisk", "--verify", path), "No errors detected.")
}

func TestFileAgrees(t *testing.T) {
	path, esp := saved(t, real(t))
	require.Contains(t, run(t, "file", "-b", path), "ISO 9660 CD-ROM filesystem data (DOS/MBR boot sector) 'RACK1' (bootable)")
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	volume := filepath.Join(t.TempDir(), "esp.img")
	require.NoError(t, os.WriteFile(volume, whole[esp.first*block:(esp.last+1)*block], 0o600))
	out := run(t, "file", "-b", volume)
	require.Contains(t, out, "DOS/MBR boot sector")
	require.Contains(t, out, `label: "RACK1      ", FAT (12 bit)`)
}

func TestMtoolsAgree(t *testing.T) {
	c := real(t)
	path, esp := saved(t, c)
	volume := fmt.Sprintf("%s@@%d", path, esp.first*block)
	out := run(t, "mdir", "-i", volume, "-/", "-b", "::")
	for _, f := range c.ESP {
		require.Contains(t, out, "::/"+f.Path+"\n")
		require.Equal(t, string(f.Data), run(t, "mtype", "-i", volume, "::"+f.Path), f.Path)
	}
	require.Contains(t, run(t, "mdir", "-i", volume, "::EFI/BOOT"), "2020-01-01   0:00")
}
