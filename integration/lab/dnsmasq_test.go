package lab

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

func exampleOptions(dir string) Options {
	return Options{
		Dir:    dir,
		Domain: "lab.test",
		DHCP: DHCP{
			File: "rack1/snponly.efi", URL: "http://boot.lab.test/rack1/snponly.efi",
			BIOS: "rack1.undionly", ARM64: "rack1.arm64.efi",
		},
		ByMAC: map[string]DHCP{
			"52:54:00:00:00:03": {NextServer: "10.77.0.2", File: "other/snponly.efi"},
			"52:54:00:00:00:02": {},
			"52:54:00:00:00:04": {BIOS: "rack1/undionly.kpxe", IPXE: "rack1.ipxe"},
			"52:54:00:00:00:05": {BIOS: "rack1/undionly.kpxe", IPXE: "rack1.ipxe", PlainROM: true},
		},
	}
}

func TestDNSMasqConfiguration(t *testing.T) {
	const golden = "testdata/dnsmasq.golden.conf"
	got := exampleOptions("/run/lab").dnsmasq()
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

func TestDNSMasqAcceptsConfiguration(t *testing.T) {
	program, err := exec.LookPath("dnsmasq")
	if err != nil {
		lack(t, err.Error())
	}
	path := t.TempDir() + "/dnsmasq.conf"
	require.NoError(t, os.WriteFile(path, exampleOptions(t.TempDir()).dnsmasq(), 0o600))
	out, err := exec.CommandContext(t.Context(), program, "--test", "--conf-file="+path).CombinedOutput()
	require.NoError(t, err, string(out))
}
