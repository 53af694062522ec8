package ipxebuild

import (
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// maxTrust is how many pairs of version and root are kept; one takes 0.5 MB.
const maxTrust = 32

// trusted is a release's BIOS binaries with a root patched in. The UEFI ones
// are patched when they are asked for: that takes less than a millisecond.
type trusted struct {
	kpxe, lkrn []byte // nil where the release has none
}

type trustKey struct {
	release *release
	root    digest
}

// trustCache keeps what was patched last.
type trustCache struct {
	mu      sync.Mutex
	entries []trustEntry // least used first
}

type trustEntry struct {
	key  trustKey
	make func() (*trusted, error) // once; others wait
}

// get patches once per key, some 0.3 s; callers at the same time wait for the
// one that does it.
func (c *trustCache) get(key trustKey) (*trusted, error) {
	c.mu.Lock()
	i := slices.IndexFunc(c.entries, func(e trustEntry) bool { return e.key == key })
	e := trustEntry{key: key, make: sync.OnceValues(func() (*trusted, error) { return key.release.patch(key.root) })}
	switch {
	case i >= 0:
		e = c.entries[i]
		c.entries = slices.Delete(c.entries, i, i+1)
	case len(c.entries) == maxTrust:
		c.entries = slices.Delete(c.entries, 0, 1)
	}
	c.entries = append(c.entries, e)
	c.mu.Unlock()
	return e.make()
}

// patch unpacks, patches and packs the BIOS binaries, side by side.
func (r *release) patch(root digest) (*trusted, error) {
	var t trusted
	var g errgroup.Group
	for name, out := range map[string]*[]byte{nameKPXE: &t.kpxe, nameLKRN: &t.lkrn} {
		h, ok := r.bases[name]
		if !ok {
			continue
		}
		g.Go(func() error {
			data, err := h.patchBIOS(root)
			if err != nil {
				return fmt.Errorf("patch trust into %s of iPXE %s: %w", name, r.version, err)
			}
			*out = data
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return &t, nil
}
