package fetch

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// notAPlace tells addresses that no server has: this network and what is
// reserved, beside those that package netip knows.
func notAPlace(a netip.Addr) bool {
	reserved := []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{}), 8), netip.PrefixFrom(netip.AddrFrom4([4]byte{240}), 4)}
	return a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() || within(reserved, a) || oddIPv6(a)
}

// oddIPv6 tells addresses that are neither global (RFC 4291, 2.4: 2000::/3 is what
// IANA gives out) nor private nor this host, among them forms that hold an IPv4
// address: local NAT64 (RFC 8215), Teredo (RFC 4380), and obsolete ones.
func oddIPv6(a netip.Addr) bool {
	if !a.Is6() || a.IsLoopback() || a.IsPrivate() {
		return false
	}
	global := netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20}), 3)
	protocols := netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01}), 23) // RFC 2928
	return !global.Contains(a) || protocols.Contains(a)
}

// inside tells networks that are not the Internet: this host, private ones, and
// shared addresses (RFC 6598), protocol assignments (RFC 6890) and benchmarks (RFC
// 2544), where some clouds keep their metadata.
func inside(a netip.Addr) bool {
	more := []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 0}), 24),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18}), 15),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{168, 63, 129, 16}), 32), // a cloud's services for its hosts
	}
	return a.IsLoopback() || a.IsPrivate() || within(more, a)
}

func within(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// checkAddr refuses addresses at which no mirror is, and those that are ours
// unless bootd's configuration names the mirror. An IPv4 address counts as such in
// the forms of IPv6 too: mapped (RFC 4291), behind NAT64 (RFC 6052), 6to4 (RFC
// 3056).
func checkAddr(a netip.Addr, named bool) error {
	a = a.Unmap().WithZone("")
	if b := a.As16(); a.Is6() && strings.HasPrefix(string(b[:]), "\x00\x64\xff\x9b\x00\x00\x00\x00\x00\x00\x00\x00") {
		a = netip.AddrFrom4([4]byte(b[12:]))
	} else if a.Is6() && b[0] == 0x20 && b[1] == 0x02 {
		a = netip.AddrFrom4([4]byte(b[2:6]))
	}
	if notAPlace(a) {
		return fmt.Errorf("%s is no address of a mirror", a)
	}
	if !named && inside(a) {
		return fmt.Errorf("%s is an address of this host or of a private network: if the mirror is to be there, name it in downloads.mirrors of bootd's configuration", a)
	}
	return nil
}

// checkBehindProxy looks at the host of a URL that a proxy will dial.
func (c *Client) checkBehindProxy(u *url.URL) error {
	proxy, err := c.proxy(u)
	if err != nil || proxy == nil {
		return err
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	named := c.named[hostPort(u)]
	if a, err := netip.ParseAddr(host); err == nil {
		return checkAddr(a, named)
	}
	if !named && (host == "localhost" || strings.HasSuffix(host, ".localhost")) {
		return fmt.Errorf("%s is the proxy itself", host)
	}
	return nil
}
