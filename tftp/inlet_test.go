package tftp

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnswerable(t *testing.T) {
	client := netip.MustParseAddrPort("10.0.0.2:2070")
	tests := map[string]struct {
		local netip.Addr
		port  uint16
		want  bool
	}{
		"ours":       {netip.MustParseAddr("10.0.0.1"), 2070, true},
		"ipv6":       {netip.MustParseAddr("fe80::1%eth0"), 2070, true},
		"unknown":    {netip.Addr{}, 2070, false},
		"wildcard":   {netip.IPv6Unspecified(), 2070, false},
		"broadcast":  {netip.MustParseAddr("255.255.255.255"), 2070, false},
		"multicast":  {netip.MustParseAddr("224.0.0.1"), 2070, false},
		"multicast6": {netip.MustParseAddr("ff02::1"), 2070, false},
		"port 0":     {netip.MustParseAddr("10.0.0.1"), 0, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := arrival{client: netip.AddrPortFrom(client.Addr(), tt.port), local: tt.local}
			require.Equal(t, tt.want, a.answerable())
		})
	}
}

func TestLargestBlock(t *testing.T) {
	in := &inlet{mtus: make(map[int]mtu)}
	v4, v6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	require.Equal(t, 1468, in.largestBlock(arrival{local: v4}), "interface unknown")
	require.Equal(t, 1448, in.largestBlock(arrival{local: v6, link: 1 << 30}), "interface gone")
	links, err := net.Interfaces()
	require.NoError(t, err)
	for _, l := range links {
		require.Equal(t, l.MTU-32, in.largestBlock(arrival{local: v4, link: l.Index}), l.Name)
	}
}
