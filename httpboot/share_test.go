package httpboot

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// drain has an answer to a machine send so many bytes, and returns how long it took.
func drain(ctx context.Context, s *share, machine string, bytes int64) (time.Duration, error) {
	begun := time.Now()
	l := s.join(machine)
	defer s.leave(l)
	for bytes > 0 {
		n := min(bytes, s.turnSize())
		if err := s.take(ctx, l, n); err != nil {
			return 0, err
		}
		bytes -= n
	}
	return time.Since(begun), nil
}

// TestStormEndsEvenly has 100 machines fetch 10 MB each through 100 MB/s, one of
// them over ten connections: nobody ends much later than the others, and
// many connections are no advantage.
func TestStormEndsEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &share{rates: Rates{Total: 100 << 20}}
		var mu sync.Mutex
		took := map[string]time.Duration{}
		var running sync.WaitGroup
		for i := range 100 {
			conns := 1
			if i == 0 {
				conns = 10
			}
			for range conns {
				running.Go(func() {
					d, err := drain(t.Context(), s, fmt.Sprint(i), 10<<20/int64(conns))
					mu.Lock()
					defer mu.Unlock()
					require.NoError(t, err)
					took[fmt.Sprint(i)] = max(took[fmt.Sprint(i)], d)
				})
			}
		}
		running.Wait()
		for machine, d := range took {
			require.LessOrEqual(t, d, 10100*time.Millisecond, "machine %s", machine)
			require.Greater(t, d, 7*time.Second, "machine %s: who comes first has three turns before the others are there", machine)
		}
		require.Empty(t, s.lines)
		require.Empty(t, s.ring)
	})
}

func TestLateMachineDoesNotStarve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &share{rates: Rates{Total: 10 << 20}}
		var running sync.WaitGroup
		for i := range 9 {
			running.Go(func() { _, _ = drain(t.Context(), s, fmt.Sprint(i), 100<<20) })
		}
		time.Sleep(5 * time.Second)
		d, err := drain(t.Context(), s, "late", 1<<20)
		require.NoError(t, err)
		require.InDelta(t, 1, d.Seconds(), 0.2, "a tenth of the line")
		running.Wait()
	})
}

func TestMachineHasItsCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &share{rates: Rates{PerMachine: 1 << 20}}
		var running sync.WaitGroup
		for _, machine := range []string{"a", "a", "b"} {
			running.Go(func() {
				d, err := drain(t.Context(), s, machine, 5<<20)
				require.NoError(t, err)
				require.InDelta(t, map[string]float64{"a": 10, "b": 5}[machine], d.Seconds(), 0.3, "two connections share %s", machine)
			})
		}
		running.Wait()
	})
}

func TestWhoLeavesTheRingTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &share{rates: Rates{Total: 1 << 20}}
		ctx, leave := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for i := range 50 {
			running.Go(func() {
				_, err := drain(ctx, s, fmt.Sprint("leaves", i), 100<<20)
				require.True(t, errors.Is(err, context.Canceled), "%v", err)
			})
		}
		time.Sleep(time.Second)
		leave()
		running.Wait()
		d, err := drain(t.Context(), s, "stays", 2<<20)
		require.NoError(t, err)
		require.InDelta(t, 2, d.Seconds(), 0.2)
		require.Empty(t, s.lines)
	})
}

func TestNoCapNoTurns(t *testing.T) {
	require.Nil(t, (&share{}).join("a"))
}
