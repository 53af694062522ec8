package integration

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/rig"
	"github.com/nestboot/nestboot/integration/storm"
)

// TestStorm is make bench-storm in short: every machine boots, from its first
// TFTP request to its report, and the journal has each of its stages.
func TestStorm(t *testing.T) {
	s := newLoopback(t, rig.Loopback{Image: 300_000, Initrd: 70_001})
	c, err := storm.Prepare(t.Context(), s)
	require.NoError(t, err)
	c.Machines = 60
	r := storm.Run(t.Context(), c)
	require.NoError(t, r.Print(os.Stderr))
	require.NoError(t, r.Err())
	require.Equal(t, c.Machines, r.Booted)

	events, err := s.Events(t.Context())
	require.NoError(t, err)
	reached := map[boot.Stage]map[string]bool{}
	for _, e := range events {
		require.False(t, e.Failed(), "%+v", e)
		if reached[e.Stage] == nil {
			reached[e.Stage] = map[string]bool{}
		}
		reached[e.Stage][e.Addr.String()] = true
	}
	for _, stage := range rig.Stages(lab.PXE) {
		require.Len(t, reached[stage], c.Machines, "%s", stage)
	}
}

// TestStormSeesFailures makes sure that a storm does not pass whatever happens.
func TestStormSeesFailures(t *testing.T) {
	s := newLoopback(t, rig.Loopback{Image: 3000})
	good, err := storm.Prepare(t.Context(), s)
	require.NoError(t, err)
	good.Machines = 2
	for stage, change := range map[storm.Stage]func(*storm.Config){
		storm.TFTP:   func(c *storm.Config) { c.Loader.SHA256[0]++ },
		storm.TLS:    func(c *storm.Config) { c.Roots = nil },
		storm.Script: func(c *storm.Config) { c.Certificate.Certificate, c.Certificate.PrivateKey = nil, nil },
		storm.Kernel: func(c *storm.Config) { c.Images = map[string]storm.File{storm.KernelPath: {Size: 3000}} },
		storm.Initrd: func(c *storm.Config) {
			c.Images = map[string]storm.File{storm.KernelPath: good.Images[storm.KernelPath]}
		},
	} {
		c := good
		change(&c)
		r := storm.Run(t.Context(), c)
		require.Equal(t, 2, r.Failures[stage].Machines, "%s: %v", stage, r.Err())
		require.Equal(t, 2, r.Failed())
	}
}
