package trusted

import (
	"crypto/x509"
	"slices"
	"sync"

	"github.com/nestboot/nestboot/pki"
)

// maxProofs bounds what is remembered; one takes up to about 20 KB.
const maxProofs = 4096

// proof is what was found out about a chain: signatures and constraints, which
// no time changes.
type proof struct {
	all       *catalogue
	presented []*x509.Certificate
	claims    []claim
}

// of reports whether the proof is about the same chain.
func (p *proof) of(presented []*x509.Certificate) bool {
	return slices.EqualFunc(p.presented, presented, (*x509.Certificate).Equal)
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
