package serving

import (
	"context"
	"errors"
	"fmt"
)

// settleTrust has each generation trust the root of what its host name shows, or
// changes nothing.
func (c *Certificates) settleTrust(ctx context.Context, s *selection) error {
	var faults []error
	var undo []func() error
	for _, h := range s.hosts {
		if h.generation == nil {
			continue
		}
		number, former := h.generation.Number, c.cfg.Authority.Trust(h.generation.Number)
		if err := c.settle(ctx, h, s); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", h.name, err))
			continue
		}
		undo = append(undo, func() error { return c.cfg.Authority.SetTrust(ctx, number, former) })
	}
	if len(faults) > 0 {
		for _, f := range undo {
			faults = append(faults, f())
		}
	}
	return errors.Join(faults...)
}

// settle does so for one generation. Where its artifacts trust our own root
// already, a wildcard does not take the name from it: nobody could get around
// that by giving other files.
func (c *Certificates) settle(ctx context.Context, h host, s *selection) error {
	given := s.given[h.name]
	root, exact := h.generation.Root, false
	for _, p := range given {
		_, named := p.covers(h.name)
		root, exact = p.root(), exact || named
	}
	err := c.cfg.Authority.SetTrust(ctx, h.generation.Number, root)
	if err == nil || exact || !c.cfg.Authority.Trust(h.generation.Number).Equal(h.generation.Root) {
		return err
	}
	s.notes[h.name] = fmt.Sprintf("%s is not used for this name, whose artifacts trust our own root: run nestctl ca rotate --root, and later artifacts trust the other", namesOf(given))
	s.use(h, nil)
	return nil
}
