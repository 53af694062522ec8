package bios

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/lab"
)

// fingerprint is the SHA-256 of iPXE's own root certificate.
const fingerprint = "\x9f\xaf\x71\x7b\x7f\x8c\xa2\xf9\x3c\x25\x6c\x79\xf8\xac\x55\x91" +
	"\x89\x5d\x66\xd1\xff\x3b\xee\x63\x97\xa7\x0d\x29\xc6\x5e\xed\x1a"

// stockDirs are the folders of stock binaries, by version.
func stockDirs(t testing.TB) map[string]string {
	t.Helper()
	m := lab.Need(t)
	return map[string]string{"1.21.1": m.IPXEDir(), "2.0.0": m.IPXE2Dir()}
}

func stock(t testing.TB, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return data
}

// program is a payload like iPXE's: it packs to about a third and is full of
// calls and jumps.
func program(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	out := make([]byte, 0, n+8)
	for len(out) < n {
		switch r.IntN(3) {
		case 0:
			out = append(out, 0xe8|byte(r.IntN(2)))
			out = binary.LittleEndian.AppendUint32(out, uint32(int32(r.IntN(2*n)-n-len(out))))
		case 1:
			out = append(out, "some text that comes again"[r.IntN(20):]...)
		default:
			out = append(out, byte(r.Uint32()), byte(r.Uint32()))
		}
	}
	return out[:n]
}

// header is what stands in front of the first block of a small binary, its
// size field not set.
func header(kind Kind) []byte {
	out := make([]byte, 0xc00)
	if kind == LKRN {
		out[0x1f1] = 5
		copy(out[0x1fe:], "\x55\xaa\xeb\x46HdrS\x07\x02")
		return out
	}
	copy(out, "\xea\x05\x00\xc0\x07")
	return out
}

// sizeAt is where small KPXE binaries have their size field.
const sizeAt = 0x431

// build joins a header and blocks, each at a multiple of 16, and sets the
// size field.
func build(kind Kind, header []byte, blocks ...[]byte) []byte {
	out := append([]byte(nil), header...)
	for _, b := range blocks {
		for len(out)%blockAlign != 0 {
			out = append(out, 0)
		}
		out = append(out, b...)
	}
	if kind == LKRN {
		binary.LittleEndian.PutUint32(out[0x1f4:], uint32((len(out)-0xc00+15)/16))
	} else {
		binary.LittleEndian.PutUint16(out[sizeAt:], uint16((len(out)+15)/16))
	}
	return out
}

// block packs data as it is, without the filter.
func block(t testing.TB, data []byte) []byte {
	t.Helper()
	b, err := pack(data, len(data))
	require.NoError(t, err)
	return b
}

// sealed is a valid block around any bytes.
func sealed(body []byte) []byte {
	out := binary.LittleEndian.AppendUint32(nil, uint32(len(body)+crcSize))
	out = append(out, body...)
	return binary.LittleEndian.AppendUint32(out, ^crc32.ChecksumIEEE(body))
}

// small is a binary with a short block in front of the last one.
func small(t testing.TB, kind Kind, payload []byte) []byte {
	t.Helper()
	filtered := append([]byte(nil), payload...)
	encodeCalls(filtered)
	return build(kind, header(kind), block(t, []byte("the first block")), block(t, filtered))
}

// allocated is how many bytes f allocates, freed ones included.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
