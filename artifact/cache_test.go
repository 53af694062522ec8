package artifact

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestT04_EvictedFilesAreSharedWhileTheyAreSent lets files fall out of the
// cache while somebody holds them: who asks next gets the same bytes, not more.
func TestT04_EvictedFilesAreSharedWhileTheyAreSent(t *testing.T) {
	const files, size = 8, 1 << 20
	c := newCache(2 * size)
	v := &version{}
	rendered := 0
	get := func(n int) File {
		f, err := c.get(t.Context(), fileKey{v, fmt.Sprint(n)}, func() ([]byte, error) {
			rendered++
			return bytes.Repeat([]byte{byte(n)}, size), nil
		})
		require.NoError(t, err)
		require.Equal(t, bytes.Repeat([]byte{byte(n)}, size), f.Data)
		return f
	}
	held := map[int]File{}
	for n := range files {
		held[n] = get(n)
	}
	for n := range files {
		again := get(n)
		require.Same(t, &held[n].Data[0], &again.Data[0])
		require.Equal(t, held[n].SHA256, again.SHA256)
	}
	require.Equal(t, files, rendered, "each file was made once")
	require.LessOrEqual(t, c.size, c.limit)

	runtime.KeepAlive(held)
	clear(held)
	runtime.GC()
	get(0)
	require.Equal(t, files+1, rendered, "a file that nobody holds is gone")
	require.Less(t, len(c.sent), files, "and not remembered")
}

func TestPanicOfARenderIsAnError(t *testing.T) {
	c := newCache(1)
	_, err := c.get(t.Context(), fileKey{&version{}, "x"}, func() ([]byte, error) { panic("broken") })
	require.ErrorContains(t, err, "broken")
	_, err = c.get(t.Context(), fileKey{&version{}, "x"}, func() ([]byte, error) { return nil, errors.New("not made") })
	require.ErrorContains(t, err, "not made")
	f, err := c.get(t.Context(), fileKey{&version{}, "x"}, func() ([]byte, error) { return []byte("x"), nil })
	require.NoError(t, err, "the slot is free again")
	require.Equal(t, "x", string(f.Data))
}
