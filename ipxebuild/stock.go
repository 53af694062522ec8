package ipxebuild

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	version "github.com/knqyf263/go-deb-version"

	"github.com/nestboot/nestboot/boot"
)

// Stock is all the bases that sets can be made of, several versions side by
// side, with the trust patched per version and root, once. It may be used by
// several goroutines.
type Stock struct {
	bundles  []Bundle
	releases []*release // of iPXE, newest first
	syslinux map[Kind]held
	shim     *held
	cache    trustCache
}

// held is a base and the bundle that it came with.
type held struct {
	Base
	from *Bundle
}

// release is one version of iPXE.
type release struct {
	version string
	bases   map[string]held // unsigned, by name
	signed  map[string]held // by name
}

// NewStock puts bundles together. Bundles of the same version must agree in
// every file; the first, which should be a .deb's, gives the Origin. A stock
// without any iPXE is an error that says what to install. Binaries of
// syslinux (PXE directory, ISO for BIOS) may be missing: Set.Missing tells.
func NewStock(bundles ...Bundle) (*Stock, error) {
	s := &Stock{bundles: slices.Clone(bundles), syslinux: map[Kind]held{}}
	var errs []error
	for i := range s.bundles {
		errs = append(errs, s.addIPXE(&s.bundles[i]))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(s.releases) == 0 {
		return nil, errors.New("no iPXE to make sets of: install Debian's package ipxe 1.21.1 or newer, or name its .deb")
	}
	slices.SortFunc(s.releases, func(a, b *release) int { return compareVersions(b.version, a.version) })
	s.pickSyslinux()
	s.sortBundles()
	return s, nil
}

// addIPXE takes a bundle's iPXE binaries and shim.
func (s *Stock) addIPXE(b *Bundle) error {
	for _, x := range b.Bases {
		h := held{Base: x, from: b}
		if x.Kind == KindShim && (s.shim == nil || compareVersions(b.Origin.Version, s.shim.from.Origin.Version) > 0) {
			s.shim = &h
		}
		if !x.Kind.isIPXE() {
			continue
		}
		r := s.release(x.Version)
		slot := r.bases
		if x.Kind == KindSigned {
			slot = r.signed
		}
		if old, ok := slot[x.Name]; ok && old.SHA256 != x.SHA256 {
			return fmt.Errorf("%s %s differs between %s and %s, of the same version %s: leave one of them out",
				x.Kind, x.Name, old.from.Origin.File, b.Origin.File, x.Version)
		} else if !ok {
			slot[x.Name] = h
		}
	}
	return nil
}

// release finds a version, or begins it.
func (s *Stock) release(v string) *release {
	for _, r := range s.releases {
		if r.version == v {
			return r
		}
	}
	r := &release{version: v, bases: map[string]held{}, signed: map[string]held{}}
	s.releases = append(s.releases, r)
	return r
}

// pickSyslinux takes the binaries of one build: ldlinux.c32 of another one
// does not start. Packages say which they are; folders can't all, so those
// count as one build. The build with most of the binaries is taken, then the
// newest.
func (s *Stock) pickSyslinux() {
	builds := map[string]map[Kind]held{}
	for i := range s.bundles {
		b := &s.bundles[i]
		build := b.Origin.Version
		if b.Origin.SHA256 == "" {
			build = "" // a folder
		}
		for _, x := range b.Bases {
			if x.Kind.project() != projectSyslinux {
				continue
			}
			if builds[build] == nil {
				builds[build] = map[Kind]held{}
			}
			if _, ok := builds[build][x.Kind]; !ok {
				builds[build][x.Kind] = held{Base: x, from: b}
			}
		}
	}
	best := ""
	for build, bases := range builds {
		n, most := len(bases), len(s.syslinux)
		if n > most || n == most && compareVersions(build, best) > 0 {
			best, s.syslinux = build, bases
		}
	}
}

// sortBundles puts the bundles of iPXE first, newest first.
func (s *Stock) sortBundles() {
	rank := func(b Bundle) string {
		for _, x := range b.Bases {
			if x.Kind.isIPXE() {
				return x.Version
			}
		}
		return ""
	}
	// Others point into the slice that came in, so a copy is sorted.
	s.bundles = slices.Clone(s.bundles)
	slices.SortStableFunc(s.bundles, func(a, b Bundle) int {
		x, y := rank(a), rank(b)
		if x == "" || y == "" {
			return strings.Compare(y, x)
		}
		return compareVersions(y, x)
	})
}

// Versions are the versions of iPXE in the stock, newest first.
func (s *Stock) Versions() []string {
	out := make([]string, 0, len(s.releases))
	for _, r := range s.releases {
		out = append(out, r.version)
	}
	return out
}

// Bundles are the bundles in the stock, those of iPXE newest first, then
// those of syslinux. The caller must not change them.
func (s *Stock) Bundles() []Bundle { return s.bundles }

// CheckKeyType reports why the given version of iPXE ("" is the newest) has
// no use for client keys of type k; nil when it has. The issuer of the
// certificate must have a key of the same kind.
func (s *Stock) CheckKeyType(k KeyType, version string) error {
	r, err := s.find(version)
	if err != nil {
		return err
	}
	switch {
	case k == RSA2048:
		return nil
	case k != P256:
		return fmt.Errorf("key type %q: want %s or %s", k, RSA2048, P256)
	case compareVersions(r.version, "2.0.0~") < 0:
		return fmt.Errorf("iPXE %s knows no ECDSA, so a key of type %s is of no use to it: take a base of 2.0.0 or newer, or %s",
			r.version, k, RSA2048)
	}
	return nil
}

// find is the release of a version; "" is the newest.
func (s *Stock) find(version string) (*release, error) {
	if version == "" {
		return s.releases[0], nil
	}
	for _, r := range s.releases {
		if r.version == version {
			return r, nil
		}
	}
	return nil, fmt.Errorf("no base of iPXE %q: there is %s", version, strings.Join(s.Versions(), ", "))
}

// efi is the release's unsigned UEFI program by one of the names, for arch.
func (r *release) efi(arch boot.Arch, names ...string) (held, bool) {
	for _, name := range names {
		if h, ok := r.bases[name]; ok && h.Arch == arch {
			return h, true
		}
	}
	return held{}, false
}

// compareVersions orders as Debian does; what Debian would not take, as text.
func compareVersions(a, b string) int {
	x, errX := version.NewVersion(a)
	y, errY := version.NewVersion(b)
	if errX != nil || errY != nil {
		return strings.Compare(a, b)
	}
	return x.Compare(y)
}

// digest is shorthand for a SHA-256.
type digest = [sha256.Size]byte
