package tftp

import (
	"cmp"
	"net/netip"
	"time"
)

// Limits bounds what strangers can make the server hold or send. They hold for
// one call of [Server.Serve]. A field that is zero has its default.
type Limits struct {
	// Transfers run at the same time, each with a socket and up to 32 KiB (256 KiB
	// for windows above that). Default 4096. Requests beyond it get no answer, so
	// that firmware tries again instead of giving up.
	Transfers int
	// PerAddress is how many of them one address may have. Default 64: machines
	// behind an address translator share one.
	PerAddress int
	// Unanswered is how many of them may wait for their client's first answer,
	// which takes a real one milliseconds, and seconds where a thousand ask at
	// the same moment. Default 768. When it is reached, the network (IPv4 /24,
	// IPv6 /64) with the most of them loses its oldest.
	Unanswered int
	// NetworkReplies and TotalReplies are datagrams per second that may go to
	// clients that do not answer them, per network (IPv4 /24, IPv6 /64) and in
	// all. Default 128 and 2048. Eight seconds' worth may be saved up, three
	// datagrams are set aside for a request, and what a client answers is given
	// back, so that every machine of a full /24 may ask at the same moment.
	NetworkReplies, TotalReplies int
	// Duration ends a transfer that is still not complete. Default 15 minutes.
	Duration time.Duration
	// Grace is how long transfers may go on after Serve was told to stop.
	// Default 10 seconds.
	Grace time.Duration
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Transfers:      cmp.Or(l.Transfers, 4096),
		PerAddress:     cmp.Or(l.PerAddress, 64),
		Unanswered:     cmp.Or(l.Unanswered, 768),
		NetworkReplies: cmp.Or(l.NetworkReplies, 128),
		TotalReplies:   cmp.Or(l.TotalReplies, 2048),
		Duration:       cmp.Or(l.Duration, 15*time.Minute),
		Grace:          cmp.Or(l.Grace, 10*time.Second),
	}
}

// privateNetworks are answered when none are configured: loopback, link-local,
// RFC 1918 and unique local addresses. A server by mistake open to the internet
// stays silent there.
func privateNetworks() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("::1/128"),
		netip.MustParsePrefix("fe80::/10"),
		netip.MustParsePrefix("fc00::/7"),
	}
}
