package ipxebuild

import (
	"bytes"
	"crypto/sha256"
	"debug/pe"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/integration/lab"
)

// efi makes a small but whole PE32+ EFI application with one section that
// holds body.
func efi(t testing.TB, machine uint16, body []byte) []byte {
	t.Helper()
	const headers = 0x200
	var b bytes.Buffer
	dos := make([]byte, 0x40)
	copy(dos, "MZ")
	binary.LittleEndian.PutUint32(dos[0x3c:], 0x40)
	b.Write(dos)
	b.WriteString("PE\x00\x00")
	put := func(v any) { require.NoError(t, binary.Write(&b, binary.LittleEndian, v)) }
	put(pe.FileHeader{Machine: machine, NumberOfSections: 1, SizeOfOptionalHeader: 240, Characteristics: 0x22})
	put(pe.OptionalHeader64{
		Magic: 0x20b, SectionAlignment: 0x1000, FileAlignment: 0x200, SizeOfHeaders: headers,
		Subsystem: pe.IMAGE_SUBSYSTEM_EFI_APPLICATION, NumberOfRvaAndSizes: 16,
	})
	section := pe.SectionHeader32{VirtualSize: uint32(len(body)), VirtualAddress: 0x1000, SizeOfRawData: uint32(len(body)), PointerToRawData: headers}
	copy(section.Name[:], ".text")
	put(section)
	b.Write(make([]byte, headers-b.Len()))
	b.Write(body)
	return b.Bytes()
}

func stock(t testing.TB) []byte {
	t.Helper()
	f, err := hex.DecodeString(stockFingerprint)
	require.NoError(t, err)
	return f
}

func TestReadBaseAndTrust(t *testing.T) {
	for machine, arch := range map[uint16]boot.Arch{pe.IMAGE_FILE_MACHINE_AMD64: boot.AMD64, pe.IMAGE_FILE_MACHINE_ARM64: boot.ARM64} {
		data := efi(t, machine, append([]byte("before"), append(stock(t), "after"...)...))
		b, err := ReadBase("snponly.efi", data)
		require.NoError(t, err)
		require.Equal(t, arch, b.Arch)
		require.Equal(t, sha256.Sum256(data), b.SHA256)
		root := sha256.Sum256([]byte("our root"))
		patched := b.Trust(root)
		require.Len(t, patched, len(data))
		require.Equal(t, bytes.Replace(data, stock(t), root[:], 1), patched, "32 bytes change and no others")
		require.Equal(t, 1, bytes.Count(data, stock(t)), "the stock binary must stay as it is")
	}
}

func TestReadBaseRefuses(t *testing.T) {
	good := efi(t, pe.IMAGE_FILE_MACHINE_AMD64, append(stock(t), make([]byte, 100)...))
	dll := bytes.Clone(good)
	dll[0x40+4+20+68] = pe.IMAGE_SUBSYSTEM_EFI_BOOT_SERVICE_DRIVER
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"empty":            {nil, "is not a UEFI program"},
		"text":             {[]byte("#!ipxe\n"), "is not a UEFI program"},
		"no fingerprint":   {efi(t, pe.IMAGE_FILE_MACHINE_AMD64, []byte("nothing")), "0 times instead of once"},
		"two fingerprints": {efi(t, pe.IMAGE_FILE_MACHINE_AMD64, bytes.Repeat(stock(t), 2)), "2 times instead of once"},
		"cut short":        {good[:len(good)-1], "cut short"},
		"only headers":     {good[:0x100], "is not a UEFI program"},
		"32-bit machine":   {efi(t, pe.IMAGE_FILE_MACHINE_I386, stock(t)), "neither x86-64 nor arm64"},
		"a driver":         {dll, "not a 64-bit EFI application"},
		"too large":        {make([]byte, maxBase+1), "more than any iPXE binary"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadBase("x.efi", tt.data)
			require.ErrorContains(t, err, "x.efi")
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, "Debian's package ipxe", "the error must name the fix")
		})
	}
}

// TestStockBinaries takes the binaries that machines really boot.
func TestStockBinaries(t *testing.T) {
	dir := lab.Need(t).IPXEDir()
	for _, name := range []string{"snponly.efi", "ipxe-amd64.efi"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		b, err := ReadBase(name, data)
		require.NoError(t, err)
		require.Equal(t, boot.AMD64, b.Arch)
		root := sha256.Sum256([]byte("our root"))
		again := b.Trust(root)
		require.Equal(t, 1, bytes.Count(again, root[:]))
		_, err = ReadBase(name, again)
		require.ErrorContains(t, err, "0 times", "a patched binary is not a stock one")
	}
}

func FuzzReadBase(f *testing.F) {
	f.Add(efi(f, pe.IMAGE_FILE_MACHINE_AMD64, stock(f)))
	f.Add(efi(f, pe.IMAGE_FILE_MACHINE_ARM64, stock(f))[:0x1f0])
	f.Add([]byte("MZ"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ReadBase("x.efi", data)
		if err != nil {
			return
		}
		root := sha256.Sum256(nil)
		require.Len(t, b.Trust(root), len(data))
	})
}
