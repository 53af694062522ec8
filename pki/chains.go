package pki

import (
	"crypto/x509"
	"sync"
	"time"
)

// maxChains bounds the memory of chains: far more certificates than sets have.
const maxChains = 4096

// chains remembers to which generation a client certificate leads, since
// building its chain costs two signature checks and a machine shows the same
// certificate with every request. What may be revoked is not remembered: that
// is looked up each time. Its zero value is ready.
type chains struct {
	mu sync.RWMutex
	of *generations // for which all of known holds
	by map[Digest]chain
}

// chain was built once, and would be again at any time between from and until.
type chain struct {
	gen         *generation
	from, until time.Time
}

// find returns the generation of a certificate with this fingerprint, if its
// chain was built before among the same generations and is valid at that time.
func (c *chains) find(gs *generations, fingerprint Digest, at time.Time) (*generation, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	known, ok := c.by[fingerprint]
	if !ok || c.of != gs || at.Before(known.from) || at.After(known.until) {
		return nil, false
	}
	return known.gen, true
}

// add remembers a chain, leaf first, that was built among gs.
func (c *chains) add(gs *generations, fingerprint Digest, gen *generation, certs []*x509.Certificate) {
	known := chain{gen: gen, from: certs[0].NotBefore, until: certs[0].NotAfter}
	for _, cert := range certs[1:] {
		if cert.NotBefore.After(known.from) {
			known.from = cert.NotBefore
		}
		if cert.NotAfter.Before(known.until) {
			known.until = cert.NotAfter
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of != gs || len(c.by) >= maxChains {
		c.of, c.by = gs, map[Digest]chain{}
	}
	c.by[fingerprint] = known
}
