package storm

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseScript(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		want   plan
		err    string
	}{
		"boots": {
			script: "#!ipxe\necho hello\nkernel --name vmlinuz https://h/k console=ttyS0 || goto failed\ninitrd https://h/i || goto failed\n" +
				"initrd https://h/own || goto failed\nboot || goto failed\n:failed\nimgfree ||\nexit 1\n",
			want: plan{kernel: "https://h/k", initrds: []string{"https://h/i", "https://h/own"}},
		},
		"waits":          {script: "#!ipxe\n# busy\necho later\nsleep 20 ||\nsleep 3 ||\n", want: plan{pause: 23 * time.Second}},
		"no script":      {script: "<html>", err: "begins with"},
		"nothing":        {script: "#!ipxe\necho hello\n", err: "neither boots nor waits"},
		"only one":       {script: "#!ipxe\nkernel https://h/k\ninitrd https://h/i\nboot\n", err: "without"},
		"sleeps for ???": {script: "#!ipxe\nsleep ${pause}\n", err: "invalid syntax"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseScript([]byte(c.script))
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

var errTest = errors.New("broken")

func TestReportCounts(t *testing.T) {
	var all []outcome
	for i := range 200 {
		all = append(all, outcome{took: map[Stage]time.Duration{TFTP: time.Duration(i+1) * time.Second}, total: time.Duration(200 - i)})
	}
	all[3] = outcome{failed: Done, err: errTest, waits: 2, waited: time.Second}
	r := newReport(all, time.Minute)
	require.Equal(t, 199, r.Booted)
	require.Equal(t, 1, r.Failed())
	require.Equal(t, 2, r.Waits)
	require.Equal(t, 199*time.Second, r.Stage(TFTP, 99), "the 198th of 199: 4 s is missing")
	require.Equal(t, time.Duration(200), r.Total(100))
	require.Zero(t, r.Stage(Kernel, 50))
	require.ErrorIs(t, r.Err(), errTest)
}

func TestMachinesDiffer(t *testing.T) {
	addrs, uuids, macs := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for n := range 60_000 {
		addrs[addrOf(n).String()], uuids[uuidOf(n)], macs[macOf(n)] = true, true, true
	}
	require.Len(t, addrs, 60_000)
	require.Len(t, uuids, 60_000)
	require.Len(t, macs, 60_000)
}
