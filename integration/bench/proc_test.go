package bench

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

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
