package tftp

import (
	"maps"
	"net/netip"
	"time"
)

const (
	// repliesPerRequest is what a client that never answers can draw at most.
	repliesPerRequest = 1 + retriesUnanswered
	// burstSeconds of unused budget are saved up.
	burstSeconds = 8
	// maxNetworks bounds the memory that forged addresses can take.
	maxNetworks = 4096
)

// bucket is a token bucket.
type bucket struct {
	tokens, rate float64
	at           time.Time
}

func newBucket(rate float64, now time.Time) *bucket {
	return &bucket{tokens: rate * burstSeconds, rate: rate, at: now}
}

func (b *bucket) refill(now time.Time) {
	b.give(now.Sub(b.at).Seconds() * b.rate)
	b.at = now
}

func (b *bucket) give(n float64) { b.tokens = min(b.tokens+n, b.burst()) }
func (b *bucket) burst() float64 { return b.rate * burstSeconds }

// budget counts the datagrams that go out unanswered. It is not for concurrent use.
type budget struct {
	rate     float64 // per network
	networks map[netip.Prefix]*bucket
	total    *bucket
}

func newBudget(l Limits, now time.Time) *budget {
	return &budget{
		rate:     float64(l.NetworkReplies),
		networks: make(map[netip.Prefix]*bucket),
		total:    newBucket(float64(l.TotalReplies), now),
	}
}

// take sets a request's replies aside. The network pays even where the total
// then says no, so that a flood does not save up; and a network that has spent
// half of its own cannot have the second half of the total, which thereby is
// kept for networks that are quiet: those of real machines, while others flood.
func (b *budget) take(client netip.Addr, now time.Time) bool {
	n := b.network(client, now)
	if n.tokens < repliesPerRequest {
		return false
	}
	reserve := 0.0
	if n.tokens < n.burst()/2 {
		reserve = b.total.burst() / 2
	}
	n.tokens -= repliesPerRequest
	b.total.refill(now)
	if b.total.tokens-reserve < repliesPerRequest {
		return false
	}
	b.total.tokens -= repliesPerRequest
	return true
}

// give returns replies that were not sent, or were answered.
func (b *budget) give(client netip.Addr, replies int) {
	if n, ok := b.networks[networkOf(client)]; ok {
		n.give(float64(replies))
	}
	b.total.give(float64(replies))
}

func (b *budget) network(client netip.Addr, now time.Time) *bucket {
	p := networkOf(client)
	n, ok := b.networks[p]
	if !ok {
		b.forget(now)
		n = newBucket(b.rate, now)
		b.networks[p] = n
	}
	n.refill(now)
	return n
}

// forget makes room. In a storm from thousands of networks all of them start
// anew, and the total alone limits.
func (b *budget) forget(now time.Time) {
	if len(b.networks) < maxNetworks {
		return
	}
	maps.DeleteFunc(b.networks, func(_ netip.Prefix, n *bucket) bool {
		n.refill(now)
		return n.tokens == n.burst()
	})
	if len(b.networks) >= maxNetworks {
		clear(b.networks)
	}
}

func networkOf(a netip.Addr) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 24
	}
	p, _ := a.WithZone("").Prefix(bits) // bits fit the family
	return p
}
