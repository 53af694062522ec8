package pki

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
)

const (
	retiredPrefix = "intermediate-" // then the serial number
	crossPrefix   = "cross-"        // then the number of the older generation

	// nextFile is an intermediate that is about to take the place of the current
	// one. Key and certificate are written before either is moved.
	nextFile = "intermediate.next"

	// maxLiving bounds how many generations live at a time: each has a chain in
	// the handshake of boot.
	maxLiving = 5
)

// Rotate replaces the intermediate of the newest generation. What the former one
// issued to machines stays good, and its key is gone; server certificates are
// issued anew. It does not end with ctx.
func (a *Authority) Rotate(ctx context.Context) (Generation, error) {
	ctx = context.WithoutCancel(ctx)
	a.renewing.Lock()
	defer a.renewing.Unlock()
	a.changing.Lock()
	defer a.changing.Unlock()
	g := a.current.Load().newest()
	if g.source != SourceOwn {
		return Generation{}, fmt.Errorf("rotate the intermediate: %w", notOurs(g))
	}
	next, err := a.rotate(ctx, g)
	if err != nil {
		return Generation{}, fmt.Errorf("rotate the intermediate: %w", err)
	}
	a.log.InfoContext(ctx, "intermediate was rotated", "stage", "pki", "generation", g.number, "serial", SerialOf(next.intermediate))
	return next.public(true), nil
}

func notOurs(g *generation) error {
	return fmt.Errorf("generation %d is issued by %s (%s): give bootd the next certificate and key of that authority and restart it", g.number, g.intermediate.Subject, g.source)
}

func (a *Authority) rotate(ctx context.Context, g *generation) (*generation, error) {
	if there, err := g.dir.has(nextFile + ".pem"); err != nil || there {
		return nil, errors.Join(err, errors.New("the last rotation could not be finished: restart bootd, which finishes it"))
	}
	next, leafs, err := a.nextIntermediate(ctx, g)
	if err != nil {
		// In this order: a certificate without its key would look finished.
		return nil, errors.Join(err, g.dir.remove(nextFile+".pem", nextFile+".key"))
	}
	if err := g.dir.finishRotation(a.step); err != nil {
		return nil, err
	}
	for i, kind := range serverKinds(next) {
		// If it fails, the next start issues others.
		if err := next.dir.writePair(kind.file, leafs[i], next.chain()); err != nil {
			a.log.ErrorContext(ctx, "server certificate was issued but not written down", "stage", "pki", "err", err)
		}
	}
	a.step("leafs")
	a.publish(next)
	return next, nil
}

// nextIntermediate writes the next intermediate beside the current one, and has
// all in memory that the generation needs to go on with it.
func (a *Authority) nextIntermediate(ctx context.Context, g *generation) (_ *generation, leafs []pair, err error) {
	root, err := g.dir.readPair("root")
	if err != nil {
		return nil, nil, err
	}
	key, err := g.dir.rsa()
	if err != nil {
		return nil, nil, err
	}
	cert, err := newIntermediate(root, key, a.now())
	if err != nil {
		return nil, nil, err
	}
	next := *g
	next.intermediate, next.retired = cert, append(slices.Clone(g.retired), g.intermediate)
	next.leafs = new(atomic.Pointer[[]*tls.Certificate])
	if next.signer, err = a.newEmbedded(&next, key); err != nil {
		return nil, nil, err
	}
	var served []*tls.Certificate
	for _, kind := range serverKinds(&next) {
		p, issuers, err := a.issueServer(ctx, &next, kind)
		if err != nil {
			return nil, nil, err
		}
		leafs, served = append(leafs, p), append(served, newLeaf(p, issuers))
	}
	next.leafs.Store(&served)
	if err := g.dir.writeCerts(retiredPrefix+SerialOf(g.intermediate), g.intermediate); err != nil {
		return nil, nil, err
	}
	a.step("retired")
	if err := g.dir.writeKey(nextFile, key); err != nil {
		return nil, nil, err
	}
	a.step("key")
	if err := g.dir.writeCerts(nextFile, cert); err != nil {
		return nil, nil, err
	}
	a.step("certificate")
	return &next, leafs, nil
}

// finishRotation puts the next intermediate in place of the current one.
func (d keyDir) finishRotation(step func(string)) error {
	if there, err := d.has(nextFile + ".key"); err != nil {
		return err
	} else if there {
		if err := d.rename(nextFile+".key", "intermediate.key"); err != nil {
			return err
		}
		step("key moved")
	}
	if err := d.rename(nextFile+".pem", "intermediate.pem"); err != nil {
		return err
	}
	step("moved")
	return nil
}

// recoverRotation finishes or undoes a rotation that was cut short: a next
// certificate is written when its key is there.
func (d keyDir) recoverRotation() error {
	decided, err := d.has(nextFile + ".pem")
	if err != nil {
		return err
	}
	begun, err := d.has(nextFile + ".key")
	switch {
	case err != nil:
		return err
	case !decided && begun:
		return d.remove(nextFile + ".key")
	case !decided:
		return nil
	}
	name := "intermediate"
	if begun {
		name = nextFile
	}
	key, err := d.readKey(name)
	if err != nil {
		return err
	}
	cert, err := d.readCert(nextFile)
	if err != nil {
		return err
	}
	if !belongs(key, cert) {
		return fmt.Errorf("a rotation was cut short, and %s does not belong to %s: restore both from the same backup", d.path(name+".key"), d.path(nextFile+".pem"))
	}
	return d.finishRotation(func(string) {})
}
