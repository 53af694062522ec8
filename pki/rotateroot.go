package pki

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nestboot/nestboot/pki/vault"
	"github.com/nestboot/nestboot/store"
)

// RotateRoot begins a new generation: another root, intermediate, host name and
// server certificates. From then on certificates are issued by it; the older
// generations go on until they are dropped. It does not end with ctx. When it
// fails and says that the outcome is not known, the same call again finds out.
func (a *Authority) RotateRoot(ctx context.Context) (Generation, error) {
	ctx = context.WithoutCancel(ctx)
	a.renewing.Lock()
	defer a.renewing.Unlock()
	a.changing.Lock()
	defer a.changing.Unlock()
	g, err := a.rotateRoot(ctx)
	if err != nil {
		return Generation{}, fmt.Errorf("rotate the root: %w", err)
	}
	a.log.InfoContext(ctx, "root was rotated: a new generation begins", "stage", "pki", "generation", g.number, "host", g.host, "root", fingerprintOf(g.root))
	return g.public(true), nil
}

func (a *Authority) rotateRoot(ctx context.Context) (*generation, error) {
	gs := a.current.Load()
	switch newest := gs.newest(); {
	case newest.source != SourceOwn:
		return nil, notOurs(newest)
	case a.ipxe == "":
		return nil, errors.New("there is no host name for iPXE from which that of the next generation could be made")
	case len(gs.living()) >= maxLiving:
		return nil, fmt.Errorf("%d generations live: drop the oldest first with nestctl ca drop %d", maxLiving, gs.living()[0].number)
	}
	number := gs.newest().number + 1
	begun, err := a.dir.has("gen-" + fmt.Sprint(number))
	if err != nil {
		return nil, err
	}
	g, err := a.prepareOwn(ctx, number)
	if err == nil {
		if err = a.recordOwn(ctx, g); err != nil && !errors.Is(err, store.ErrNoSpace) {
			return nil, fmt.Errorf("whether it was recorded is not known: repeat the command, or the next start finds out: %w", err)
		}
	}
	switch {
	case err != nil && begun: // by a call that may have been recorded
		return nil, err
	case err != nil: // nobody has seen it
		return nil, errors.Join(err, a.dirOf(number).removeAll())
	}
	a.step("recorded")
	a.publish(g)
	return g, nil
}

// prepareOwn makes a generation that can be served as soon as it is recorded.
func (a *Authority) prepareOwn(ctx context.Context, number int) (*generation, error) {
	g, err := a.addOwn(ctx, number)
	if err != nil {
		return nil, err
	}
	if err := a.openOwnSigner(g); err != nil {
		return nil, err
	}
	g.leafs.Store(&[]*tls.Certificate{})
	return g, a.openServer(ctx, g)
}

// addOwn makes the certificates of a generation, or what is missing of them.
func (a *Authority) addOwn(ctx context.Context, number int) (*generation, error) {
	dir := a.dirOf(number)
	if err := vault.Dir(dir.dir); err != nil {
		return nil, fmt.Errorf("directory for keys: %w", err)
	}
	ca, err := dir.ensureIssuers(number, a.now())
	if err != nil {
		return nil, err
	}
	a.step("issuers")
	for _, older := range a.current.Load().living() {
		cert, err := crossCertify(older.root, ca.root)
		if err != nil {
			return nil, err
		}
		if err := dir.writeCerts(fmt.Sprint(crossPrefix, older.number), cert); err != nil {
			return nil, err
		}
	}
	a.step("cross")
	a.log.DebugContext(ctx, "issuers of a generation made", "stage", "pki", "generation", number)
	return a.openGeneration(generationRecord{
		Number: number, Root: fingerprintOf(ca.root.cert), Source: SourceOwn, Created: a.now().UTC(),
	})
}

// recordOwn makes what addOwn has made a generation. When it fails, with anything
// but store.ErrNoSpace, the store may have the record all the same, now or soon:
// a start that finds it needs the files.
func (a *Authority) recordOwn(ctx context.Context, g *generation) error {
	bounded, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err := a.writeRecord(bounded, &generationRecord{Number: g.number, Root: fingerprintOf(g.root), Source: g.source, Created: g.created}, false)
	if err != nil && a.isRecorded(ctx, g) {
		return nil // the answer was lost, or that to an earlier call
	}
	return err
}

// isRecorded reports whether the store is known to have the generation.
func (a *Authority) isRecorded(ctx context.Context, g *generation) bool {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	e, err := a.store.Get(ctx, generationKey(g.number))
	var r generationRecord
	return err == nil && json.Unmarshal(e.Value, &r) == nil && r.Root == fingerprintOf(g.root)
}

// takeUp completes the next generation, if its certificates are all there and
// only the record is missing; what is less than that is removed: nobody has ever
// seen it.
func (a *Authority) takeUp(ctx context.Context) error {
	number := a.current.Load().newest().number + 1
	dir := a.dirOf(number)
	there, err := a.dir.has("gen-" + fmt.Sprint(number))
	if err != nil || !there {
		return err
	}
	if dir.checkIssuerFiles(false) != nil {
		a.log.WarnContext(ctx, "a generation was left half made; it is removed", "stage", "pki", "generation", number)
		return dir.removeAll()
	}
	g, err := a.addOwn(ctx, number)
	if err != nil {
		return err
	}
	if err := a.recordOwn(ctx, g); err != nil {
		return err
	}
	a.log.WarnContext(ctx, "a generation was made but not recorded; now it is", "stage", "pki", "generation", number, "root", fingerprintOf(g.root))
	a.publish(g)
	return nil
}

// Drop ends a generation: its certificates are refused, on open connections too,
// and its keys are removed. It does not end with ctx. When it fails with an
// *Unsaved it holds all the same. The newest generation stays.
func (a *Authority) Drop(ctx context.Context, number int) error {
	gs := a.current.Load()
	g := gs.find(number)
	switch {
	case g == nil:
		return ErrUnknownGeneration
	case g == gs.newest():
		return fmt.Errorf("drop generation %d: it is the newest: run nestctl ca rotate --root first", number)
	}
	// At once, whoever asks a step-ca or writes meanwhile.
	a.alter(func(gs *generations) *generation { return gs.find(number).end(true) })
	return a.saveDrop(context.WithoutCancel(ctx), number)
}

// end is the generation when it is dropped.
func (g *generation) end(unsaved bool) *generation {
	next := *g
	next.dropped, next.signer, next.unsaved = true, nil, unsaved
	return &next
}

// saveDrops writes down what Drop could not.
func (a *Authority) saveDrops(ctx context.Context) error {
	var errs []error
	for _, g := range a.current.Load().all {
		if g.unsaved {
			errs = append(errs, a.saveDrop(ctx, g.number))
		}
	}
	return errors.Join(errs...)
}

// saveDrop writes down that a generation was dropped, and removes its keys.
func (a *Authority) saveDrop(ctx context.Context, number int) error {
	if err := a.recordDrop(ctx, number); err != nil {
		return &Unsaved{fmt.Sprintf("generation %d is dropped", number), err}
	}
	a.step("dropped")
	a.renewing.Lock() // a renewal writes files
	defer a.renewing.Unlock()
	g := a.current.Load().find(number)
	if err := g.dir.removeKeys(); err != nil {
		return fmt.Errorf("generation %d is dropped, but its keys are still there; it is tried again: %w", number, err)
	}
	a.alter(func(gs *generations) *generation { return gs.find(number).end(false) })
	a.log.InfoContext(ctx, "generation was dropped", "stage", "pki", "generation", number)
	return nil
}

func (a *Authority) recordDrop(ctx context.Context, number int) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	return a.editRecord(ctx, number, true, func(r *generationRecord) error {
		r.Dropped = true
		return nil
	})
}

// removeKeys leaves of a generation what tells its certificates from others'.
func (d keyDir) removeKeys() error {
	there, err := d.has("")
	if err != nil || !there {
		return err
	}
	return d.remove("root.key", "intermediate.key", nextFile+".key", nextFile+".pem",
		serverFile+".key", serverFile+".pem", serverECFile+".key", serverECFile+".pem")
}
