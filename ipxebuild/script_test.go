package ipxebuild

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func newScript() scriptConfig {
	return scriptConfig{set: "rack1", url: "https://ipxe.example.com", cert: []byte{0x30, 0x82, 1}, key: []byte{0x30, 0x82, 2}}
}

// scripts are one script per option, by the name of its golden.
func scripts() map[string]scriptConfig {
	with := func(change func(*scriptConfig)) scriptConfig {
		c := newScript()
		change(&c)
		return c
	}
	static := &Static{Address: netip.MustParsePrefix("192.0.2.7/24"), Gateway: netip.MustParseAddr("192.0.2.1"), DNS: netip.MustParseAddr("192.0.2.53")}
	return map[string]scriptConfig{
		"autoexec.ipxe":    newScript(),
		"keyless.ipxe":     with(func(c *scriptConfig) { c.cert, c.key = nil, nil }),
		"vlan.ipxe":        with(func(c *scriptConfig) { c.options.VLAN = 42 }),
		"static.ipxe":      with(func(c *scriptConfig) { c.options.Static = static }),
		"static-vlan.ipxe": with(func(c *scriptConfig) { c.options.Static, c.options.VLAN = static, 4094 }),
		"ntp.ipxe":         with(func(c *scriptConfig) { c.options.NTP = "pool.ntp.org" }),
		"local-after.ipxe": with(func(c *scriptConfig) { c.options.LocalAfter = 5 }),
		"user-class.ipxe":  with(func(c *scriptConfig) { c.foreign, c.marked = true, "2.0.0,0102ab" }),
	}
}

func TestScriptGoldens(t *testing.T) {
	for name, c := range scripts() {
		t.Run(name, func(t *testing.T) {
			got, err := c.render()
			require.NoError(t, err)
			golden(t, name, got)
		})
	}
}

// TestT16_DHCPPlantsNoCrossCertificates: an empty value would delete the
// setting, and that of DHCP would hold.
func TestT16_DHCPPlantsNoCrossCertificates(t *testing.T) {
	for name, c := range scripts() {
		got, err := c.render()
		require.NoError(t, err)
		before, _, ok := strings.Cut(string(got), "\n:start\n")
		require.True(t, ok, name)
		require.Contains(t, before, "\nset crosscert:hexraw 00\n", name)
		require.Equal(t, 1, strings.Count(string(got), "crosscert"), name)
	}
}

func TestScriptSaysWhetherItHoldsAKey(t *testing.T) {
	for name, c := range scripts() {
		got, err := c.render()
		require.NoError(t, err)
		holds := strings.Contains(string(got), "set privkey:")
		require.Equal(t, c.key != nil, holds, name)
		require.Equal(t, holds, strings.Contains(string(got), "# nestboot, artifact set rack1. This file holds a private key.\n"), name)
		require.Equal(t, !holds, strings.Contains(string(got), "This file holds no private key.\n"), name)
	}
}

// TestScriptNeverSpins walks each script as iPXE does when everything fails,
// and when the server's scripts return at once: no label is passed twice
// without a sleep between.
func TestScriptNeverSpins(t *testing.T) {
	for name, c := range scripts() {
		got, err := c.render()
		require.NoError(t, err)
		for _, fails := range []string{"chain", "dhcp", "iflinkwait", ""} {
			walk(t, name+" without "+fails, strings.Split(strings.TrimSpace(string(got)), "\n"), fails)
		}
	}
}

// walk runs a script in which one command fails, and those that would leave
// it: comparisons with the machine's own values.
func walk(t *testing.T, name string, lines []string, fails string) {
	t.Helper()
	labels := map[string]int{}
	for i, line := range lines {
		if label, ok := strings.CutPrefix(line, ":"); ok {
			labels[label] = i
		}
	}
	slept, back := false, 0
	for at, steps := 0, 0; back < 4; steps++ {
		require.Less(t, steps, 1000, "%s: it spins", name)
		command, orElse, hasElse := strings.Cut(lines[at], " || ")
		command, then, _ := strings.Cut(command, " && ")
		word, _, _ := strings.Cut(command, " ")
		next := then
		if failed := word == fails || word == "iseq" && !strings.Contains(command, "${platform} pcbios"); failed {
			next = ""
			if hasElse {
				next = orElse
			}
		}
		if word == "sleep" {
			slept = true
		}
		if word == "goto" {
			next = command
		}
		if word == "exit" {
			return
		}
		label, jumps := strings.CutPrefix(strings.TrimSuffix(next, " ||"), "goto ")
		if !jumps {
			at++
			continue
		}
		to, ok := labels[label]
		require.True(t, ok, "%s: no label %s", name, label)
		if to <= at {
			require.True(t, slept, "%s: line %q goes back without a pause", name, lines[at])
			slept, back = false, back+1
		}
		at = to
	}
}

func TestScriptRefusesBases(t *testing.T) {
	for _, base := range []string{"", "http://ipxe.example.com", "https://", "https://h/path", "https://h?q", "https://u@h/", "https://h h", "https://${x}", "https://h\nboot"} {
		c := newScript()
		c.url = base
		_, err := c.render()
		require.Errorf(t, err, "base %q", base)
	}
}

func TestOptionsValidate(t *testing.T) {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	require.NoError(t, Options{}.Validate())
	require.NoError(t, Options{
		VLAN: 1, NTP: "192.0.2.123", LocalAfter: 1000, Console: Console{Serial: "ttyS1,9600"},
		Static: &Static{Address: prefix("10.0.0.1/31"), Gateway: addr("10.0.0.0")},
	}.Validate())
	for want, o := range map[string]Options{
		"vlan 4095":                    {VLAN: 4095},
		"vlan -1":                      {VLAN: -1},
		"local_after -1":               {LocalAfter: -1},
		"local_after 1001":             {LocalAfter: 1001},
		`ntp "a b"`:                    {NTP: "a b"},
		`ntp "${x}"`:                   {NTP: "${x}"},
		`ntp "::1"`:                    {NTP: "::1"},
		`ntp "-x"`:                     {NTP: "-x"},
		`serial console "ttyS4"`:       {Console: Console{Serial: "ttyS4"}},
		`serial console "ttyS0,1"`:     {Console: Console{Serial: "ttyS0,1"}},
		`serial console "ttyS0\nX"`:    {Console: Console{Serial: "ttyS0\nX"}},
		"static.address":               {Static: &Static{}},
		"an IPv4 address with":         {Static: &Static{Address: prefix("2001:db8::1/64")}},
		"static.gateway 10.0.1.1":      {Static: &Static{Address: prefix("10.0.0.1/24"), Gateway: addr("10.0.1.1")}},
		"static.gateway 10.0.0.1":      {Static: &Static{Address: prefix("10.0.0.1/24"), Gateway: addr("10.0.0.1")}},
		"static.dns ::1":               {Static: &Static{Address: prefix("10.0.0.1/24"), DNS: addr("::1")}},
		"is a name, and static.dns is": {NTP: "pool.ntp.org", Static: &Static{Address: prefix("10.0.0.1/24")}},
	} {
		err := o.Validate()
		require.ErrorContains(t, err, want)
		c := newScript()
		c.options = o
		_, err = c.render()
		require.Error(t, err)
	}
	err := Options{VLAN: 9999, LocalAfter: -1}.Validate()
	require.ErrorContains(t, err, "vlan")
	require.ErrorContains(t, err, "local_after", "all faults at once")
}

func TestNetmask(t *testing.T) {
	for bits, want := range map[int]string{1: "128.0.0.0", 8: "255.0.0.0", 23: "255.255.254.0", 24: "255.255.255.0", 31: "255.255.255.254"} {
		require.Equal(t, want, netmask(bits))
	}
}
