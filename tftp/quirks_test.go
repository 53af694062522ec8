package tftp

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHardwareAddress(t *testing.T) {
	const mac = "52:54:00:12:ab:cd"
	tests := map[string]string{
		"pxelinux.cfg/01-52-54-00-12-ab-cd":                 mac, // PXELINUX
		"rack1/pxelinux.cfg/01-52-54-00-12-AB-CD":           mac,
		"boot/grub/grub.cfg-01-52-54-00-12-ab-cd":           mac, // GRUB 2
		"52:54:00:12:ab:cd.ipxe":                            mac, // iPXE's three formats
		"rack1/52-54-00-12-ab-cd.ipxe":                      mac,
		"525400 12abcd.ipxe":                                "",
		"52540012abcd.ipxe":                                 mac,
		"MAC-52540012ABCD.ipxe":                             mac, // netboot.xyz
		"52-54-00-12-ab-cd/start4.elf":                      mac, // Raspberry Pi 4
		"52-54-00-12-ab-cd/overlays/a.dtbo":                 "",
		"rack1.efi":                                         "",
		"pxelinux.cfg/default":                              "",
		"pxelinux.cfg/C0A8010A":                             "", // an IPv4 address
		"pxelinux.cfg/4c4c4544-0042-3510-8052-b4c04f564433": "", // a UUID
		"02-52-54-00-12-ab-cd":                              "",
		"52-54:00-12-ab-cd":                                 "",
		"525400-12-ab-cd-1":                                 "",
		"000000000000.ipxe":                                 "",
		"01005e000001.ipxe":                                 "", // multicast
		"":                                                  "",
		"..":                                                "",
	}
	for name, want := range tests {
		require.Equal(t, want, hardwareAddress(name).String(), "%q", name)
	}
}
