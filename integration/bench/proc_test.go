package bench

import (
	"crypto/sha256"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

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

func TestMemoryAndFilesOfThisProcess(t *testing.T) {
	before, err := MemoryOf(os.Getpid())
	require.NoError(t, err)
	require.Positive(t, before.Anonymous)
	require.Greater(t, before.Resident, before.Anonymous, "the program's own code is mapped")
	held := make([]byte, 64<<20)
	for i := range held {
		held[i] = byte(i)
	}
	after, err := MemoryOf(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, after.Anonymous, before.Anonymous+int64(len(held)/2))
	require.Equal(t, byte(255), held[255])

	n, err := Files(os.Getpid())
	require.NoError(t, err)
	f, err := os.Open("proc.go")
	require.NoError(t, err)
	defer f.Close()
	more, err := Files(os.Getpid())
	require.NoError(t, err)
	require.Equal(t, n+1, more)
	_, err = MemoryOf(0)
	require.ErrorIs(t, err, os.ErrNotExist)
}
