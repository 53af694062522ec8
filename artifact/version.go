package artifact

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"path"
	"regexp"
	"sync/atomic"

	"github.com/nestboot/nestboot/ipxebuild"
	"github.com/nestboot/nestboot/pki"
)

// version is one state of a set. It never changes, but for gone.
type version struct {
	rec   record
	cert  *x509.Certificate // nil for a keyless set
	token pki.Secret
	built *ipxebuild.Set // nil: nothing is served
	files map[string]ipxebuild.FileInfo
	bare  []string    // scripts that iPXE asks for without their folder
	fault error       // why the set cannot be served
	gone  atomic.Bool // nothing of it is cached any more
}

func (v *version) copy() *version {
	return &version{rec: v.rec, cert: v.cert, token: v.token, built: v.built, files: v.files, bare: v.bare, fault: v.fault}
}

// replace puts another version in the place of the one that it was made from, and
// reports whether it did: a set that is being deleted meanwhile stays so. The
// caller holds m.work, unless next is the end.
func (s *Sets) replace(m *member, was, next *version) bool {
	if !m.current.CompareAndSwap(was, next) {
		return false
	}
	s.cache.forget(was)
	return true
}

// versionsOf are the versions of iPXE that sets can be made of, the newest
// first.
func versionsOf(stock *ipxebuild.Stock) []string {
	if stock == nil {
		return nil
	}
	return stock.Versions()
}

// config is what ipxebuild makes a set from.
func (s *Sets) config(spec Spec, generation int, c credential) (ipxebuild.Config, error) {
	root := s.cfg.Authority.Trust(generation)
	if root == nil {
		return ipxebuild.Config{}, fmt.Errorf("its files carry the root of generation %d of the authority, which was dropped", generation)
	}
	cfg := ipxebuild.Config{
		Name: spec.Name, URL: s.urlOf(generation), Root: sha256.Sum256(root.Raw),
		Base: spec.Base, Archs: spec.Archs, Options: spec.Options,
	}
	if c.cert != nil {
		cfg.Cert, cfg.Key, cfg.KeyType = c.cert.Raw, c.key, ipxebuild.KeyType(spec.KeyType)
	}
	return cfg, nil
}

// scriptName is how the script is called that iPXE, loaded by PXE under OVMF,
// asks for in the root, whatever folder it came from itself (seen with
// snponly.efi 1.21.1+git20250501 under OVMF 2022.11; by HTTP it names the
// folder).
var scriptName = regexp.MustCompile(`^(?:[0-9a-f]{8}|autoexec)\.ipxe$`)

// build makes a version that can be served.
func (s *Sets) build(r record, c credential) (*version, error) {
	v := &version{rec: r, cert: c.cert, files: map[string]ipxebuild.FileInfo{}}
	var err error
	if v.token, err = tokenOf(s.secret, r.ID); err != nil {
		return nil, err
	}
	stock := s.stock.Load()
	if stock == nil {
		return nil, fmt.Errorf("assemble set %s: %w", r.Spec.Name, errNoBases)
	}
	cfg, err := s.config(r.Spec, r.generation(), c)
	if err == nil {
		v.built, err = stock.Set(cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("assemble set %s: %w", r.Spec.Name, err)
	}
	for _, f := range v.built.Files() {
		v.files[f.Name] = f
		if dir, base := path.Split(f.Name); dir != "" && scriptName.MatchString(base) {
			v.bare = append(v.bare, base)
		}
	}
	return v, nil
}

// load brings back a set that was made before. It never fails: what is wrong
// becomes the version's fault.
func (s *Sets) load(ctx context.Context, r record) *version {
	var c credential
	err := r.damaged
	if err == nil && !r.Spec.Keyless {
		c, err = s.credential(ctx, r)
	}
	if r.damaged == nil {
		r = s.settled(r, c)
	}
	if err == nil && !s.expired(r) {
		var v *version
		if v, err = s.build(r, c); err == nil {
			return v
		}
	}
	v := &version{rec: r, cert: c.cert, fault: err}
	if err != nil {
		s.cfg.Log.ErrorContext(ctx, "set cannot be served", "set", r.Spec.Name, "err", err)
	}
	if v.token, err = tokenOf(s.secret, r.ID); err != nil {
		v.fault = err
	}
	return v
}

// UseStock takes over other binaries. Each set keeps the version of iPXE that
// it was made with; one that lacked its binaries, or anything else, is served
// again when they are there, and one whose binaries are gone is served until
// the next start.
func (s *Sets) UseStock(ctx context.Context, stock *ipxebuild.Stock) {
	same := sameStock(s.stock.Load(), stock)
	if !same {
		s.stock.Store(stock)
	}
	for _, m := range s.members() {
		if !same || s.down(m.current.Load()) {
			s.reload(ctx, m)
		}
	}
}

// down reports whether a set should be served and is not.
func (s *Sets) down(v *version) bool {
	return v.rec.State == ready && v.rec.damaged == nil && v.built == nil && !s.expired(v.rec)
}

// reload loads a set anew and reports whether it can be served. One that was
// served and now cannot be loaded is served as it was.
func (s *Sets) reload(ctx context.Context, m *member) bool {
	m.work.Lock()
	defer m.work.Unlock()
	v := m.current.Load()
	if v.rec.State != ready {
		return true
	}
	next := s.load(ctx, v.rec)
	if (next.fault == nil || v.built == nil) && s.replace(m, v, next) {
		s.noteMove(ctx, m, v.rec)
	}
	return next.fault == nil
}
