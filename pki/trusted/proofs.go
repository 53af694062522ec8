package trusted

import (
	"crypto/sha256"
	"crypto/x509"
	"sync"

	"github.com/nestboot/nestboot/pki"
)

// maxProofs bounds what is remembered; one takes up to about 20 KB.
const maxProofs = 4096

// proof is what was found out about a chain: signatures and constraints, which
// no time changes.
type proof struct {
	all       *catalogue
	presented pki.Digest
	claims    []claim
}

func digestOf(presented []*x509.Certificate) (d pki.Digest) {
	h := sha256.New()
	for _, c := range presented {
		h.Write(c.Raw) // DER tells where it ends
	}
	h.Sum(d[:0])
	return d
}

// proofs are those of the certificates that machines present again and again,
// by their leaf's fingerprint. Strangers leave none, so they can't crowd out
// the others.
type proofs struct {
	mu   sync.RWMutex
	byFP map[pki.Digest]*proof
}

func (p *proofs) get(fingerprint pki.Digest) *proof {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.byFP[fingerprint]
}

func (p *proofs) put(fingerprint pki.Digest, one *proof) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byFP == nil {
		p.byFP = map[pki.Digest]*proof{}
	}
	if _, known := p.byFP[fingerprint]; !known && len(p.byFP) >= maxProofs {
		for other := range p.byFP {
			delete(p.byFP, other)
			break
		}
	}
	p.byFP[fingerprint] = one
}

// reset forgets them all.
func (p *proofs) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.byFP = nil
}
