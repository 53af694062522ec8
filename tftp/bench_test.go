package tftp

import (
	"fmt"
	"io"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkTransfer moves 16 MiB over loopback; the client takes its share of
// the processor.
func BenchmarkTransfer(b *testing.B) {
	file := content(16 << 20)
	for _, window := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("window=%d", window), func(b *testing.B) {
			addr, _ := start(b, &Server{Open: files(map[string]any{"a": file})}, loopback)
			b.SetBytes(int64(len(file)))
			for b.Loop() {
				require.NoError(b, download(b, "", addr, io.Discard, 1468, window, time.Second, "a", "octet", "blksize", "1468", "windowsize", strconv.Itoa(window)))
			}
		})
	}
}
