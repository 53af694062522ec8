package bios

import (
	"bytes"
	"encoding/binary"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var stockFiles = map[string]Kind{"undionly.kpxe": KPXE, "undionly.kkpxe": KPXE, "ipxe.pxe": KPXE, "ipxe.lkrn": LKRN}

func TestStock(t *testing.T) {
	for version, dir := range stockDirs(t) {
		for name, kind := range stockFiles {
			t.Run(version+" "+name, func(t *testing.T) {
				m, err := Read(stock(t, dir, name))
				require.NoError(t, err)
				require.Equal(t, kind, m.Kind())
				payload := string(m.Payload())
				require.Equal(t, 1, strings.Count(payload, fingerprint))
				require.Regexp(t, regexp.MustCompile(`[^ -~]`+regexp.QuoteMeta(version)+`[+.\-0-9A-Za-z]*\x00`), payload)
				require.Greater(t, mostCalled(m.Payload()), 100,
					"some function must be called often once operands are relative")
			})
		}
	}
}

// TestStockRepack leaves the payload as it is, and puts other bytes in place
// of the fingerprint: such as look like calls, which the filter changes.
func TestStockRepack(t *testing.T) {
	calls := append(bytes.Repeat([]byte{0xe8, 0, 0, 1, 0}, 6), 0xe9, 0xff)
	for version, dir := range stockDirs(t) {
		for _, name := range []string{"undionly.kpxe", "ipxe.lkrn"} {
			t.Run(version+" "+name, func(t *testing.T) {
				if testing.Short() && name == "ipxe.lkrn" {
					t.Skip("half a second, many with the race detector")
				}
				data := stock(t, dir, name)
				m, err := Read(data)
				require.NoError(t, err)
				plain := m.Payload()
				for _, root := range []string{fingerprint, string(calls)} {
					payload := bytes.Replace(plain, []byte(fingerprint), []byte(root), 1)
					out, err := m.Repack(payload)
					require.NoError(t, err)
					require.Less(t, len(out), len(data)*115/100)
					again, err := Read(out)
					require.NoError(t, err)
					require.Equal(t, m.Kind(), again.Kind())
					require.True(t, bytes.Equal(payload, again.Payload()))
				}
				require.True(t, bytes.Equal(plain, m.Payload()), "the image must stay as it is")
			})
		}
	}
}

func TestStockCutShort(t *testing.T) {
	for name := range stockFiles {
		data := stock(t, stockDirs(t)["1.21.1"], name)
		for _, n := range []int{len(data) - 1, len(data) - 16, len(data) / 2, 0x3000} {
			_, err := Read(data[:n])
			require.ErrorContains(t, err, "cut short", "%s, %d bytes", name, n)
		}
		for _, n := range []int{0x800, 0x210, 16, 4, 1, 0} {
			_, err := Read(data[:n])
			require.Error(t, err, "%s, %d bytes", name, n)
		}
	}
}

// mostCalled is the largest number of CALLs that any one address has.
func mostCalled(p []byte) int {
	calls := map[int]int{}
	most := 0
	for o := 0; o+callSize <= len(p); o++ {
		if p[o] != 0xe8 {
			continue
		}
		target := o + callSize + int(int32(binary.LittleEndian.Uint32(p[o+1:])))
		calls[target]++
		if target > 0 && target < len(p) {
			most = max(most, calls[target])
		}
	}
	return most
}

func BenchmarkStock(b *testing.B) {
	for version, dir := range stockDirs(b) {
		for _, name := range []string{"undionly.kpxe", "ipxe.lkrn"} {
			data := stock(b, dir, name)
			m, err := Read(data)
			require.NoError(b, err)
			b.Run("read/"+version+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					_, err := Read(data)
					require.NoError(b, err)
				}
			})
			b.Run("repack/"+version+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				payload := m.Payload()
				for b.Loop() {
					out, err := m.Repack(payload)
					require.NoError(b, err)
					b.ReportMetric(float64(len(out)-len(data)), "bytes-more")
				}
			})
		}
	}
}
