package single

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/integration/lab"
)

var update = flag.Bool("update", false, "write the golden files")

const script = "#!ipxe\necho hello\n"

// program makes a small but whole EFI application. A signed one claims a
// certificate table.
func program(t testing.TB, m uint16, signed bool) []byte {
	t.Helper()
	out, err := writePE(m, []section{
		{".text", []byte("code"), pe.IMAGE_SCN_CNT_CODE}, {".reloc", noRelocations(), pe.IMAGE_SCN_CNT_INITIALIZED_DATA},
	})
	require.NoError(t, err)
	if signed {
		const directories = peOffset + 4 + 20 + 112
		binary.LittleEndian.PutUint32(out[directories+8*pe.IMAGE_DIRECTORY_ENTRY_SECURITY+4:], 8)
	}
	return out
}

func amd64(t testing.TB) []byte { return program(t, pe.IMAGE_FILE_MACHINE_AMD64, false) }

// lkrn makes a file of size bytes with the header of ipxe.lkrn.
func lkrn(size int) []byte {
	le := binary.LittleEndian
	k := bytes.Repeat([]byte("iPXE"), size/4+1)[:size]
	clear(k[:endOfSetup])
	k[atSetupSects] = 5
	le.PutUint32(k[atSysSize:], uint32(up(size-6*512, 16)/16))
	le.PutUint16(k[atBootFlag:], 0xaa55)
	copy(k[atHdrS:], "HdrS")
	le.PutUint16(k[atVersion:], 0x0207)
	k[atLoadFlags] = loadedHigh
	le.PutUint32(k[atInitrdMax:], 0xffffffff)
	return k
}

// stock is a binary that machines really boot.
func stock(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(lab.Need(t).IPXEDir(), name))
	require.NoError(t, err)
	return data
}

// golden compares with a file below testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "if the change is meant: go test -update")
}

var arches = map[boot.Arch]struct {
	machine uint16
	stock   []string
}{
	boot.AMD64: {pe.IMAGE_FILE_MACHINE_AMD64, []string{"snponly.efi", "ipxe-amd64.efi"}},
	boot.ARM64: {pe.IMAGE_FILE_MACHINE_ARM64, []string{"ipxe-arm64.efi"}},
}
