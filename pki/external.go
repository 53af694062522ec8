package pki

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/nestboot/nestboot/pki/vault"
)

// external is an authority that we didn't make: an imported one, or a step-ca.
type external struct {
	source  string
	root    *x509.Certificate
	issuers []*x509.Certificate                                    // the one that issues first, the root apart; empty: as recorded
	ask     func(ctx context.Context) ([]*x509.Certificate, error) // for the issuers; nil: they are known
	signer  func(g *generation) (signer, error)
}

// openExternal reads the authority that is configured; nil: our own issues.
func (a *Authority) openExternal(cfg Config) (*external, error) {
	switch {
	case cfg.Import != nil:
		return a.openImport(*cfg.Import)
	case cfg.Step != nil:
		return a.openStep(*cfg.Step)
	}
	return nil, nil
}

// followExternal makes what is configured the newest generation. Another issuer
// below the same root is a rotation of the intermediate, another root begins a
// new generation.
func (a *Authority) followExternal(ctx context.Context, outer *external) error {
	newest := a.current.Load().newest()
	switch {
	case outer == nil && newest.source == SourceOwn:
		return nil
	case outer == nil || newest.source != outer.source || !newest.root.Equal(outer.root):
		return a.nextExternal(ctx, newest.number+1, outer)
	case len(outer.issuers) > 0 && !newest.intermediate.Equal(outer.issuers[0]):
		return a.rotateExternal(ctx, newest, outer)
	}
	return nil
}

// nextExternal begins a generation below another authority's root, or below one
// of our own again.
func (a *Authority) nextExternal(ctx context.Context, number int, outer *external) error {
	gs := a.current.Load()
	switch {
	case a.ipxe == "":
		return errors.New("another authority is configured, and there is no host name for iPXE from which that of a new generation could be made")
	case len(gs.living()) >= maxLiving:
		return fmt.Errorf("another authority is configured, and %d generations live: configure the former one again, and drop the oldest with nestctl ca drop %d", maxLiving, gs.living()[0].number)
	}
	if outer == nil {
		g, err := a.addOwn(ctx, number)
		if err == nil {
			err = a.recordOwn(ctx, g)
		}
		if err != nil {
			return err
		}
		a.publish(g)
	} else if err := a.addExternal(ctx, number, outer); err != nil {
		return err
	}
	g := a.current.Load().newest()
	a.log.WarnContext(ctx, "another authority issues from now on: a new generation begins; sets move to it when they are renewed",
		"stage", "pki", "generation", number, "host", g.host, "source", g.source, "root", fingerprintOf(g.root))
	return nil
}

// addExternal makes a generation of another authority's certificates.
func (a *Authority) addExternal(ctx context.Context, number int, outer *external) error {
	gs := a.current.Load()
	if gs == nil {
		gs = newGenerations(nil)
	}
	if g := gs.below(outer.root); g != nil {
		return fmt.Errorf("%s is the root of generation %d already: a generation needs a root of its own", outer.root.Subject, g.number)
	}
	dir := a.dirOf(number)
	if err := vault.Dir(dir.dir); err != nil {
		return fmt.Errorf("directory for keys: %w", err)
	}
	if there, err := dir.has("root.key"); err != nil || there {
		return errors.Join(err, fmt.Errorf("%s holds keys of a PKI that the store does not know: restore the store from the same backup, or move it away", dir.dir))
	}
	if outer.ask != nil {
		issuers, err := outer.ask(ctx)
		if err != nil {
			return err
		}
		outer.issuers = issuers
	}
	r := generationRecord{Number: number, Root: fingerprintOf(outer.root), Source: outer.source, Created: a.now().UTC()}
	if err := a.tryExternal(ctx, r, outer); err != nil {
		return err
	}
	if err := dir.writeCerts("root", outer.root); err != nil {
		return err
	}
	if err := dir.writeCerts("intermediate", outer.issuers...); err != nil {
		return err
	}
	a.step("external")
	if err := a.writeRecord(ctx, &r, false); err != nil {
		return err
	}
	a.step("recorded")
	g, err := a.openGeneration(r)
	if err != nil {
		return err
	}
	a.current.Store(gs.with(g))
	a.changed.fire()
	return nil
}

// tryExternal has an authority issue a server certificate before a generation is
// made of it: one that cannot would have to be dropped again.
func (a *Authority) tryExternal(ctx context.Context, r generationRecord, outer *external) (err error) {
	g := a.newGeneration(r)
	g.root, g.intermediate, g.between = outer.root, outer.issuers[0], outer.issuers[1:]
	if g.signer, err = outer.signer(g); err != nil {
		return err
	}
	_, _, err = a.issueServer(ctx, g, serverKinds(g)[0])
	return err
}

// learn takes over the issuers by which an authority elsewhere issues now.
func (a *Authority) learn(number int, issuers []*x509.Certificate) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	gs := a.current.Load()
	if gs == nil { // it is only tried
		return nil
	}
	g := gs.numbered(number)
	if g == nil || g.intermediate.Equal(issuers[0]) {
		return nil
	}
	return a.rotateExternal(context.Background(), g, &external{issuers: issuers})
}

// rotateExternal takes over another issuer below the same root. One that has
// issued before is not retired any more.
func (a *Authority) rotateExternal(ctx context.Context, g *generation, outer *external) error {
	former := append([]*x509.Certificate{g.intermediate}, g.between...)
	if err := g.dir.writeCerts(retiredPrefix+SerialOf(g.intermediate), former...); err != nil {
		return err
	}
	a.step("retired")
	if err := g.dir.writeCerts("intermediate", outer.issuers...); err != nil {
		return err
	}
	next := *g
	next.intermediate, next.between = outer.issuers[0], outer.issuers[1:]
	next.retired = slices.DeleteFunc(append(slices.Clone(g.retired), former...), next.intermediate.Equal)
	a.publish(&next)
	a.log.InfoContext(ctx, "the authority issues by another intermediate", "stage", "pki", "generation", g.number, "serial", SerialOf(next.intermediate))
	return nil
}

// openSigners says who issues for each generation. For one of an authority that
// is not configured any more nobody does: its certificates stay good, and its
// server certificates are served to their end.
func (a *Authority) openSigners(ctx context.Context, outer *external) (err error) {
	for _, g := range a.current.Load().living() {
		switch {
		case g.source == SourceOwn:
			err = a.openOwnSigner(g)
		case outer != nil && outer.root.Equal(g.root):
			g.signer, err = outer.signer(g)
		default:
			a.log.WarnContext(ctx, "the authority of a former generation is not configured any more: its server certificates are not renewed",
				"stage", "pki", "generation", g.number, "root", g.root.Subject.String())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// openOwnSigner loads the keys of one of our own generations, and checks that
// all belongs together.
func (a *Authority) openOwnSigner(g *generation) error {
	root, err := g.dir.readPair("root")
	if err != nil {
		return lost(err)
	}
	intermediate, err := g.dir.readPair("intermediate")
	if err != nil {
		return lost(err)
	}
	if err := g.dir.checkIssuers(root.cert, intermediate.cert); err != nil {
		return err
	}
	g.signer, err = a.newEmbedded(g, intermediate.key)
	return err
}
