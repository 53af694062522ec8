package pki

import (
	"crypto"
	"crypto/tls"
	"slices"
)

// serverKind is one of the server certificates that stand side by side.
type serverKind struct {
	file    string
	profile profile
	newKey  func() (crypto.Signer, error)
}

// serverKinds are the kinds of a generation's server certificates, that for
// clients of our time first. RSA is for iPXE before 2.0.0 and for old firmware,
// which could not verify it below an issuer with an EC key.
func serverKinds(g *generation) []serverKind {
	kinds := []serverKind{{serverECFile, serverECProfile, newECKey}}
	if !isEC(g.intermediate.PublicKey) {
		kinds = append(kinds, serverKind{serverFile, serverProfile, func() (crypto.Signer, error) { return g.dir.rsa() }})
	}
	return kinds
}

// Leafs returns the server certificates of a generation, [P-256, RSA], or P-256
// alone where the issuer has an EC key. Their names are all of Config.Hosts with
// the generation's own host name for iPXE, and Config.Addrs. Each chain is leaf,
// intermediate, root: iPXE trusts a fingerprint and must be sent the certificate
// that has it. They are replaced when they are renewed, so ask again for every
// handshake. Nil: there is no such generation, or nothing issues for it any more.
//
// Number 0 is for the name that all generations share, boot. It is the oldest
// generation's certificate, which clients that know that root alone accept; the
// chain goes on with certificates that lead from the newer roots to that one,
// for those that trust one of them alone. A client that takes the first issuer
// that fits, as OpenSSL does in firmware, has to trust the oldest root: give it
// the roots of all Generations.
func (a *Authority) Leafs(number int) []*tls.Certificate {
	gs := a.current.Load()
	if number == 0 {
		return a.sharedLeafs(gs.living())
	}
	if g := gs.numbered(number); g != nil {
		return *g.leafs.Load()
	}
	return nil
}

func (a *Authority) sharedLeafs(living []*generation) []*tls.Certificate {
	for i, g := range living {
		leafs := slices.DeleteFunc(slices.Clone(*g.leafs.Load()), func(c *tls.Certificate) bool { return a.now().After(c.Leaf.NotAfter) })
		if len(leafs) == 0 && i < len(living)-1 {
			continue // it was imported, and its issuer is not here any more
		}
		newer := bridges(living[i:])
		for n, c := range leafs {
			longer := *c
			longer.Certificate = slices.Concat(c.Certificate, newer)
			leafs[n] = &longer
		}
		return leafs
	}
	return nil
}

// bridges are the certificates that lead from each newer root to the one before
// it.
func bridges(living []*generation) (chain [][]byte) {
	for i, g := range living[1:] {
		cross, ok := g.cross[living[i].number]
		if !ok {
			break
		}
		chain = append(chain, cross.Raw, g.root.Raw)
	}
	return chain
}
