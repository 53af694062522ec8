package bench

import (
	"bytes"
	"crypto/sha256"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestReport(t *testing.T) {
	t.Setenv("BENCH_SAVE", "")
	var out bytes.Buffer
	require.NoError(t, Report(t.Context(), &out,
		Figure{Name: "alone", Ours: Milliseconds(1500 * time.Microsecond), Unit: "ms"},
		Figure{Name: "compared", Ours: 3, Unit: "handshakes/s", Peer: "nginx-1.22.1", Theirs: 2},
		Figure{Name: "counted", Ours: 3, Unit: "ms", Counts: true, Failed: 2},
	))
	require.Equal(t, "BENCH name=alone ours=1.5 unit=ms\n"+
		"BENCH name=compared ours=3.0 unit=handshakes/s peer=nginx-1.22.1 theirs=2.0 ratio=1.50\n"+
		"BENCH name=counted ours=3.0 unit=ms failed=2\n", out.String())
}

func TestMedian(t *testing.T) {
	values := []int{5, 1, 3}
	require.Equal(t, 3, Median(values))
	require.Equal(t, []int{5, 1, 3}, values, "they stay as they were")
	require.Equal(t, 3, Median([]int{1, 3}))
}

func TestCPUCountsWork(t *testing.T) {
	before, err := CPU(os.Getpid())
	require.NoError(t, err)
	sum := [32]byte{}
	for now := before; now < before+2*tick; { // until it was seen
		for range 1000 {
			sum = sha256.Sum256(sum[:])
		}
		now, err = CPU(os.Getpid())
		require.NoError(t, err)
	}
	_, err = CPU(0)
	require.ErrorIs(t, err, os.ErrNotExist)
}
