package bios

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

const fuzzAllocation = 64 << 20

// FuzzRead takes any bytes as a file, and also as a whole binary's last block,
// which chance does not reach past the CRC.
func FuzzRead(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		if seal {
			data = build(KPXE, header(KPXE), sealed(data))
		}
		var m *Image
		n := allocated(func() { m, _ = Read(data) })
		require.Less(t, n, uint64(fuzzAllocation))
		if m == nil {
			return
		}
		p := m.Payload()
		require.LessOrEqual(t, len(p), maxPayload)
		// A result may be refused for its size, but never be another payload.
		if out, err := m.Repack(p); err == nil {
			again, err := Read(out)
			require.NoError(t, err)
			require.True(t, bytes.Equal(p, again.Payload()))
		}
	})
}

// FuzzRepack replaces bytes of a payload by any others.
func FuzzRepack(f *testing.F) {
	plain := program(2000)
	files := map[Kind][]byte{KPXE: small(f, KPXE, plain), LKRN: small(f, LKRN, plain)}
	f.Fuzz(func(t *testing.T, patch []byte, at uint16, linux bool) {
		kind := KPXE
		if linux {
			kind = LKRN
		}
		m, err := Read(files[kind])
		require.NoError(t, err)
		payload := m.Payload()
		copy(payload[int(at)%len(payload):], patch)
		var out []byte
		n := allocated(func() { out, err = m.Repack(payload) })
		require.NoError(t, err)
		require.Less(t, n, uint64(fuzzAllocation))
		again, err := Read(out)
		require.NoError(t, err)
		require.True(t, bytes.Equal(payload, again.Payload()))
		require.Equal(t, kind, again.Kind())
	})
}
