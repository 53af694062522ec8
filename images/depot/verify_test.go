package depot

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestScrubGoesOn: one file that cannot be opened hides no damage of another.
func TestScrubGoesOn(t *testing.T) {
	w := newWorld(t)
	m, other := w.must("flatcar:alpha:1.0"), w.must("flatcar:stable:1.0")
	require.NoError(t, os.Remove(w.blob(m.Kernel.SHA256)))
	require.NoError(t, os.Symlink(m.Kernel.SHA256, w.blob(m.Kernel.SHA256))) // to itself: ELOOP
	w.flip(other.Kernel)
	require.ErrorContains(t, w.Scrub(t.Context()), m.ID())
	require.NoFileExists(t, w.blob(other.Kernel.SHA256))
	wait := time.Until(w.state.Scrubbed.Add(scrubEvery))
	require.InDelta(t, scrubRetry, wait, float64(time.Minute), "not at once again, and not tomorrow")
}
