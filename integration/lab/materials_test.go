package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFindMaterialsNamesTheCure(t *testing.T) {
	t.Setenv("NESTBOOT_CACHE", t.TempDir())
	_, err := FindMaterials()
	require.ErrorContains(t, err, "make deps")
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Programs of the materials run on this machine, and refuse what is wrong.
func TestMaterialsCommand(t *testing.T) {
	m := needMaterials(t)
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	leases := file("leases", "")
	tests := []struct {
		name string
		cmd  func(path string) *exec.Cmd
		good string
		bad  string
	}{
		{
			"dhcpd", func(path string) *exec.Cmd {
				return m.Command(t.Context(), "usr/sbin/dhcpd", "-t", "-cf", path, "-lf", leases)
			},
			"subnet 10.0.0.0 netmask 255.255.255.0 {}\n", "subnet x\n",
		},
		{
			"kea", func(path string) *exec.Cmd { return m.Command(t.Context(), "usr/sbin/kea-dhcp4", "-t", path) },
			`{"Dhcp4": {"lease-database": {"type": "memfile", "persist": false}}}`, `{"Dhcp4": {"x": 1}}`,
		},
		{
			"ignition", func(path string) *exec.Cmd { return m.Command(t.Context(), "usr/bin/ignition-validate", path) },
			`{"ignition": {"version": "3.3.0"}}`, `{"ignition": {"version": "9.9.9"}}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, err := tt.cmd(file(tt.name, tt.good)).CombinedOutput()
			require.NoError(t, err, string(out))
			require.Error(t, tt.cmd(file(tt.name, tt.bad)).Run())
		})
	}
}

func TestMaterialsOfArtifacts(t *testing.T) {
	m := needMaterials(t)
	syslinux := m.SyslinuxDirs()
	for _, path := range append(m.Debs(),
		m.IPXE("snponly.efi"), m.IPXE("ipxe-amd64.efi"), filepath.Join(m.IPXE2Dir(), "ipxe-arm64.efi"),
		filepath.Join(syslinux[0], "lpxelinux.0"), filepath.Join(syslinux[1], "isohdpfx.bin"), filepath.Join(syslinux[2], "ldlinux.c32"),
		filepath.Join(m.ShimDir(), "shimx64.efi.signed"), m.Stock(),
	) {
		require.FileExists(t, path)
	}
}
