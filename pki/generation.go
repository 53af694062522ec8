package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Where the certificates of a generation come from.
const (
	SourceOwn      = "own"
	SourceImported = "imported"
	SourceStepCA   = "step-ca"
)

// ErrUnknownGeneration is returned for a number that no living generation has.
var ErrUnknownGeneration = errors.New("no such generation of the boot pki")

// Generation is one trust root with its own host name for iPXE: a machine's
// iPXE trusts one root, and the server cannot see which.
type Generation struct {
	Number       int
	Host         string // for iPXE; empty if there is no such name
	Root         *x509.Certificate
	Intermediate *x509.Certificate   // which issues now
	Retired      []*x509.Certificate // issued before, and what they issued is good
	Created      time.Time
	Newest       bool
	Source       string
	Dropped      bool
}

// generation is one version of a generation. It never changes; a rotation
// publishes another one.
type generation struct {
	number       int
	host         string
	source       string
	created      time.Time
	dropped      bool
	unsaved      bool // dropped, but the record does not say so yet, or its keys are still there
	dir          keyDir
	root         *x509.Certificate // nil: dropped, and its files are lost
	intermediate *x509.Certificate
	between      []*x509.Certificate       // from the intermediate's issuer to below the root; own ones have none
	retired      []*x509.Certificate       // with those between
	cross        map[int]*x509.Certificate // roots of older generations, certified by this one
	trust        *x509.Certificate         // of given server certificates; nil: root
	signer       signer                    // nil: nobody can issue below this root any more

	leafs *atomic.Pointer[[]*tls.Certificate] // replaced by renewals
}

func (g *generation) public(newest bool) Generation {
	return Generation{
		Number: g.number, Host: g.host, Root: g.root, Intermediate: g.intermediate, Retired: slices.Clone(g.retired),
		Created: g.created, Newest: newest, Source: g.source, Dropped: g.dropped,
	}
}

// trusted is the root that artifacts of the generation carry.
func (g *generation) trusted() *x509.Certificate {
	if g.trust != nil {
		return g.trust
	}
	return g.root
}

// generations are all that there ever were, at one moment.
type generations struct {
	all                  []*generation // by number, dropped ones too
	roots, intermediates *x509.CertPool
}

func newGenerations(all []*generation) *generations {
	slices.SortFunc(all, func(a, b *generation) int { return a.number - b.number })
	gs := &generations{all: all, roots: x509.NewCertPool(), intermediates: x509.NewCertPool()}
	for _, g := range all {
		if g.root == nil {
			continue
		}
		gs.roots.AddCert(g.root)
		for _, c := range slices.Concat([]*x509.Certificate{g.intermediate}, g.between, g.retired) {
			gs.intermediates.AddCert(c)
		}
	}
	return gs
}

// living are those that were not dropped, the oldest first.
func (gs *generations) living() []*generation {
	return slices.DeleteFunc(slices.Clone(gs.all), func(g *generation) bool { return g.dropped })
}

// newest is never dropped.
func (gs *generations) newest() *generation { return gs.all[len(gs.all)-1] }

// numbered returns the living generation with this number; 0 is the newest.
func (gs *generations) numbered(number int) *generation {
	if number == 0 {
		return gs.newest()
	}
	for _, g := range gs.all {
		if g.number == number && !g.dropped {
			return g
		}
	}
	return nil
}

// find returns the generation with this number, dropped or not.
func (gs *generations) find(number int) *generation {
	for _, g := range gs.all {
		if g.number == number {
			return g
		}
	}
	return nil
}

// below returns the generation that a root is of.
func (gs *generations) below(root *x509.Certificate) *generation {
	for _, g := range gs.all {
		if g.root != nil && g.root.Equal(root) {
			return g
		}
	}
	return nil
}

// with returns the same with one generation replaced or added.
func (gs *generations) with(next *generation) *generations {
	all := slices.DeleteFunc(slices.Clone(gs.all), func(g *generation) bool { return g.number == next.number })
	return newGenerations(append(all, next))
}

// Generations returns those that were not dropped, the oldest first: at least
// one.
func (a *Authority) Generations() []Generation {
	gs := a.current.Load()
	var all []Generation
	for _, g := range gs.living() {
		all = append(all, g.public(g == gs.newest()))
	}
	return all
}

// Generation returns the one with this number, dropped or not. Of a dropped one
// the certificates may be lost.
func (a *Authority) Generation(number int) (Generation, bool) {
	gs := a.current.Load()
	g := gs.find(number)
	if g == nil {
		return Generation{}, false
	}
	return g.public(g == gs.newest()), true
}

// hostOf is the host name of a generation, made from that of the first one.
func hostOf(first string, number int) string {
	if first == "" || number == 1 {
		return first
	}
	label, domain, dotted := strings.Cut(first, ".")
	label += "-" + strconv.Itoa(number)
	if dotted {
		label += "." + domain
	}
	return label
}

// namesOf are the names in the server certificates of a generation.
func (a *Authority) namesOf(number int) serverNames {
	if number == 1 || a.ipxe == "" {
		return a.names
	}
	n := serverNames{addrs: a.names.addrs}
	for _, h := range a.names.hosts {
		if h == a.ipxe {
			h = hostOf(a.ipxe, number)
		}
		n.hosts = append(n.hosts, h)
	}
	slices.Sort(n.hosts)
	n.hosts = slices.Compact(n.hosts)
	return n
}

// openGeneration loads the certificates of a generation that was made before.
func (a *Authority) openGeneration(r generationRecord) (*generation, error) {
	g := a.newGeneration(r)
	if r.Dropped {
		return a.openDropped(g)
	}
	if err := g.dir.recoverRotation(); err != nil {
		return nil, err
	}
	if err := g.load(r.Root); err != nil {
		return nil, err
	}
	return g, g.parseTrust(r.Trust)
}

func (a *Authority) newGeneration(r generationRecord) *generation {
	return &generation{
		number: r.Number, host: hostOf(a.ipxe, r.Number), source: r.Source, created: r.Created, dropped: r.Dropped,
		dir: a.dirOf(r.Number), leafs: new(atomic.Pointer[[]*tls.Certificate]),
	}
}

// dirOf is where a generation lies. The first one is older than the others'
// folders.
func (a *Authority) dirOf(number int) keyDir {
	if number == 1 {
		return a.dir
	}
	return a.dir.sub("gen-" + strconv.Itoa(number))
}

// load reads the certificates of a generation, whose root has this fingerprint.
func (g *generation) load(root Digest) (err error) {
	if g.root, err = g.dir.readCert("root"); err != nil {
		return lost(err)
	}
	if fingerprintOf(g.root) != root {
		return fmt.Errorf("%s has SHA-256 %s, but machines were enrolled under %s: restore the directory that belongs to this state", g.dir.path("root.pem"), fingerprintOf(g.root), root)
	}
	issuers, err := g.dir.readCerts("intermediate")
	if err != nil {
		return lost(err)
	}
	g.intermediate, g.between = issuers[0], issuers[1:]
	if err := g.loadRetired(); err != nil {
		return err
	}
	return g.loadCross()
}

func (g *generation) loadRetired() error {
	retired, err := g.dir.readAll(retiredPrefix)
	if err != nil {
		return err
	}
	delete(retired, SerialOf(g.intermediate)) // a rotation was cut short
	for _, serial := range slices.Sorted(maps.Keys(retired)) {
		g.retired = append(g.retired, retired[serial]...)
	}
	slices.SortStableFunc(g.retired, func(a, b *x509.Certificate) int { return a.NotBefore.Compare(b.NotBefore) })
	return nil
}

func (g *generation) loadCross() error {
	older, err := g.dir.readAll(crossPrefix)
	if err != nil {
		return err
	}
	g.cross = map[int]*x509.Certificate{}
	for name, certs := range older {
		if n, err := strconv.Atoi(name); err == nil {
			g.cross[n] = certs[0]
		}
	}
	return nil
}

// chain are the issuers of what the generation issues now, root last.
func (g *generation) chain() []*x509.Certificate {
	return slices.Concat([]*x509.Certificate{g.intermediate}, g.between, []*x509.Certificate{g.root})
}

func (g *generation) parseTrust(der []byte) (err error) {
	if len(der) == 0 {
		return nil
	}
	if g.trust, err = x509.ParseCertificate(der); err != nil {
		return fmt.Errorf("the recorded root of generation %d is damaged: %w", g.number, err)
	}
	return nil
}

// openDropped removes what Drop may not have come to, and keeps what is needed
// to tell whose a refused certificate was.
func (a *Authority) openDropped(g *generation) (*generation, error) {
	if err := g.dir.removeKeys(); err != nil {
		return nil, err
	}
	root, err := g.dir.readCert("root")
	if err != nil {
		return g, nil // its certificates are then nobody's
	}
	if err := g.load(fingerprintOf(root)); err != nil {
		g.root = nil
	}
	return g, nil
}

// publish makes a version of a generation the current one. One that was dropped
// while the version was made stays dropped.
func (a *Authority) publish(g *generation) {
	a.alter(func(gs *generations) *generation {
		if was := gs.find(g.number); was != nil && was.dropped {
			return was
		}
		return g
	})
}

// alter makes the version that next returns the current one of its generation.
func (a *Authority) alter(next func(*generations) *generation) {
	a.publishing.Lock()
	gs := a.current.Load()
	a.current.Store(gs.with(next(gs)))
	a.publishing.Unlock()
	a.changed.fire()
}
