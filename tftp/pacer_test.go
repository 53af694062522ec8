package tftp

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPacer(t *testing.T) {
	const ms = time.Millisecond
	tests := map[string]struct {
		pacer pacer
		want  []time.Duration // by number of timeouts
	}{
		"nothing measured":   {pacer{}, []time.Duration{1000 * ms, 2000 * ms, 4000 * ms, 5000 * ms, 5000 * ms}},
		"fast network":       {pacer{srtt: 200 * time.Microsecond, rttvar: 50 * time.Microsecond}, []time.Duration{20 * ms, 40 * ms, 80 * ms, 160 * ms, 320 * ms, 640 * ms, 1280 * ms, 2560 * ms, 5000 * ms, 5000 * ms}},
		"slow network":       {pacer{srtt: 100 * ms, rttvar: 50 * ms}, []time.Duration{300 * ms, 600 * ms, 1200 * ms, 2400 * ms, 4800 * ms, 5000 * ms}},
		"unbearable network": {pacer{srtt: time.Minute}, []time.Duration{5000 * ms, 5000 * ms}},
		"client's wish":      {pacer{fixed: 7000 * ms, srtt: ms}, []time.Duration{7000 * ms, 7000 * ms, 7000 * ms}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for n, want := range tt.want {
				tt.pacer.timeouts = n
				require.Equal(t, want, tt.pacer.wait(), "after %d timeouts", n)
			}
		})
	}
}

func TestPacerFollowsTheNetwork(t *testing.T) {
	var p pacer
	p.measured(0) // a coarse clock
	require.Equal(t, minWait, p.wait())
	for range 50 {
		p.measured(100 * time.Millisecond)
	}
	require.InDelta(t, 100, p.wait().Milliseconds(), 10)
	p.timeouts = 3
	p.measured(100 * time.Millisecond)
	require.InDelta(t, 100, p.wait().Milliseconds(), 10, "a clean round trip ends the back-off")
	for range 100 {
		p.measured(time.Millisecond)
	}
	require.Equal(t, minWait, p.wait())
	p.measured(250 * time.Millisecond) // a client that repeated a lost ACK
	require.Greater(t, p.wait(), minWait)
	p.measured(time.Millisecond)
	require.Equal(t, minWait, p.wait(), "one honest round trip is enough")
}
