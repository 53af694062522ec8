// Package pull brings releases here: from the maker's site, a mirror or a folder
// into the depot, verified.
//
// The order is the point (T28): what proves a release comes first, then the
// files, then digests and signatures are checked over what lies on disk, and only
// then the release becomes visible. Begin at Puller.
package pull

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nestboot/nestboot/images/depot"
	"github.com/nestboot/nestboot/images/fetch"
	"github.com/nestboot/nestboot/images/release"
	"github.com/nestboot/nestboot/images/signature"
)

// maxCurrent is how many bytes the file may have that tells the current version.
const maxCurrent = 8 << 20

// Puller pulls. All fields are required.
type Puller struct {
	Depot   *depot.Depot
	Client  *fetch.Client
	Systems release.Systems
	Reserve int64 // bytes that stay free in the file system
	Now     func() time.Time

	mu     sync.Mutex
	active map[string]bool // ids

	keysMu sync.Mutex // held from reading kept keys to replacing them
}

// Request says what to pull, and from where.
type Request struct {
	Ref  string `json:"release"` // system:channel:version; the version may be current
	Arch string `json:"arch"`    // x86_64 (default) or arm64
	// Mirror is the URL of a mirror, Folder a path on bootd's host. Neither: the
	// maker's own site. The URL may hold {channel}.
	Mirror string `json:"mirror,omitempty"`
	Folder string `json:"from,omitempty"`
	// PlainHTTP allows http://. Signatures tell what was changed, not what was
	// held back or seen.
	PlainHTTP bool `json:"plain_http,omitempty"`
	// Force takes a version that is older than one that was here.
	Force bool `json:"force,omitempty"`
	// Unsigned takes a release of a system whose makers sign nothing.
	Unsigned bool `json:"unsigned,omitempty"`
	// SHA256 are digests by file name; what is here must match.
	SHA256 map[string]string `json:"sha256,omitempty"`
	// Keys are public keys, instead of those that the description names.
	Keys string `json:"keys,omitempty"`
}

// Invalid is a request that cannot be carried out as it stands.
type Invalid struct{ Reason string }

func (e *Invalid) Error() string { return e.Reason }

func invalid(err error) error { return &Invalid{Reason: err.Error()} }

// ErrBusy is a release that somebody else pulls just now.
var ErrBusy = errors.New("this release is being pulled already")

// Progress is how far a pull is.
type Progress struct {
	Step  string `json:"step"`            // version, file, verify or done
	Text  string `json:"text,omitempty"`  // for people
	File  string `json:"file,omitempty"`  // name of the file
	Done  int64  `json:"done,omitempty"`  // bytes
	Total int64  `json:"total,omitempty"` // -1: not known
}

// job is one pull.
type job struct {
	*Puller
	Request
	ref     release.Ref
	current bool // a mirror has said that this is the version
	system  release.System
	source  fetch.Source
	tell    func(Progress)
}

// Pull brings a release here and returns it. tell is called with what goes on,
// by the same goroutine.
func (p *Puller) Pull(ctx context.Context, r Request, tell func(Progress)) (depot.Manifest, error) {
	j := &job{Puller: p, Request: r, tell: tell}
	if err := j.prepare(ctx); err != nil {
		return depot.Manifest{}, err
	}
	if !p.enter(j.ref.ID()) {
		return depot.Manifest{}, ErrBusy
	}
	defer p.leave(j.ref.ID())
	if err := j.notOlder(); err != nil {
		return depot.Manifest{}, err
	}
	if m, ok, err := j.isHere(ctx); ok || err != nil {
		return m, err
	}
	return j.bring(ctx)
}

// notOlder refuses what is older than what was here, and a mirror whose current
// version is: even if that is here still, it holds back what is newer.
func (j *job) notOlder() error {
	switch {
	case j.Force:
		return nil
	case j.current:
		return j.Depot.CheckCurrent(j.ref, j.system.Order)
	}
	return j.Depot.Check(j.ref, j.system.Order)
}

func (p *Puller) enter(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.active[id] {
		return false
	}
	if p.active == nil {
		p.active = map[string]bool{}
	}
	p.active[id] = true
	return true
}

func (p *Puller) leave(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.active, id)
}

// prepare finds out what is asked for.
func (j *job) prepare(ctx context.Context) (err error) {
	if j.ref, err = release.ParseRef(j.Ref, j.Arch); err != nil {
		return invalid(err)
	}
	if j.system, err = j.Systems.Find(j.ref); err != nil {
		return invalid(err)
	}
	if j.source, err = j.from(); err != nil {
		return invalid(err)
	}
	if j.ref.Version != release.CurrentVersion {
		return j.mayPull()
	}
	j.current = true
	data, err := j.small(ctx, j.system.Expand(j.system.Current.File, j.ref), maxCurrent)
	if err != nil {
		return fmt.Errorf("find the current version: %w", err)
	}
	if j.ref, err = j.system.Resolve(j.ref, data); err != nil {
		return err
	}
	if err := j.mayPull(); err != nil { // names of files may hold the version
		return err
	}
	if j.source, err = j.from(); err != nil { // and so may the URL
		return invalid(err)
	}
	j.tell(Progress{Step: "version", Text: fmt.Sprintf("%s:%s is at %s now; name that in bootd.yaml: %s", j.ref.System, j.ref.Channel, j.ref.Version, j.ref)})
	return nil
}

// mayPull refuses what nothing would prove.
func (j *job) mayPull() error {
	kernel, initrds := j.system.Files(j.ref)
	var names, missing []string
	for _, f := range append([]string{kernel}, initrds...) {
		names = append(names, path.Base(f))
		if j.SHA256[path.Base(f)] == "" {
			missing = append(missing, path.Base(f))
		}
	}
	for name, digest := range j.SHA256 {
		if !slices.Contains(names, name) {
			return invalid(fmt.Errorf("--sha256 %.100s: %s has no such file: it has %s", name, j.ref, strings.Join(names, ", ")))
		}
		if raw, err := hex.DecodeString(digest); err != nil || len(raw) != sha256.Size {
			return invalid(fmt.Errorf("--sha256 %.100s=%.100s: want 64 hexadecimal digits", name, digest))
		}
	}
	switch {
	case j.system.Signature.Kind == release.SHA256 && len(missing) > 0:
		return invalid(fmt.Errorf("%s is proved by digests that you give: --sha256 FILE=DIGEST for %s", j.system.Name, strings.Join(missing, ", ")))
	case j.system.Signature.Kind == release.None && len(missing) > 0 && !j.Unsigned:
		return invalid(fmt.Errorf("nothing proves that the files of %s are its makers': give their digests with --sha256 FILE=DIGEST, or take them as they come with --unsigned", j.system.Name))
	}
	return nil
}

// from is where files are fetched.
func (j *job) from() (fetch.Source, error) {
	base := j.Mirror
	switch {
	case j.Mirror != "" && j.Folder != "":
		return nil, errors.New("--mirror and --from do not go together")
	case j.Folder != "":
		return fetch.NewFolder(j.Folder, j.Reserve)
	case base == "":
		base = j.system.URL
	}
	if base == "" {
		return nil, fmt.Errorf("the description of %s names no site: name a mirror with --mirror, or a folder with --from", j.system.Name)
	}
	return j.Client.Site(j.system.Expand(base, j.ref), j.PlainHTTP)
}

// small fetches a small file: by its path from the source, by its URL from
// wherever it is, unless a mirror or folder was named, which has it on top.
func (j *job) small(ctx context.Context, place string, limit int64) ([]byte, error) {
	if !release.IsURL(place) {
		return j.source.Small(ctx, place, limit)
	}
	if j.Mirror != "" || j.Folder != "" {
		return j.source.Small(ctx, path.Base(place), limit)
	}
	dir, file := path.Split(place)
	site, err := j.Client.Site(dir, j.PlainHTTP)
	if err != nil {
		return nil, err
	}
	return site.Small(ctx, file, limit)
}

// isHere answers a pull of what is here already, after reading it all. What is
// damaged is pulled again.
func (j *job) isHere(ctx context.Context) (m depot.Manifest, ok bool, err error) {
	m, err = j.Depot.Get(j.ref)
	if err != nil {
		return m, false, nil
	}
	damaged, err := j.Depot.Verify(ctx, j.ref)
	if err != nil || len(damaged) > 0 || j.Force {
		return m, false, err
	}
	for _, f := range m.Files() {
		if want := j.SHA256[f.Name]; want != "" && !strings.EqualFold(want, f.SHA256) {
			return m, false, &signature.Refusal{Code: signature.CodeBad, Reason: fmt.Sprintf("%s of %s is here and has the SHA-256 %s, not the given %s", f.Name, m.ID(), f.SHA256, want)}
		}
	}
	j.tell(Progress{Step: "done", Text: m.ID() + " is here already, and whole"})
	return m, true, nil
}

// bring fetches, verifies and publishes.
func (j *job) bring(ctx context.Context) (depot.Manifest, error) {
	m := depot.Manifest{
		Format: 1, Ref: j.ref, Initrds: []depot.File{}, Args: slices.Clone(j.system.Args), Order: j.system.Order,
		Source: j.source.String(), Proof: depot.Proof{Kind: j.system.Signature.Kind},
	}
	proof, err := j.proof(ctx)
	if err != nil {
		return m, err
	}
	kernel, initrds := j.system.Files(j.ref)
	parts := map[string]string{}
	for i, file := range append([]string{kernel}, initrds...) {
		f, part, err := j.file(ctx, file, proof)
		if err != nil {
			return m, err
		}
		parts[f.SHA256] = part
		if i == 0 {
			m.Kernel = f
			continue
		}
		m.Initrds = append(m.Initrds, f)
	}
	if m.Proof.Signed, err = j.oldest(proof); err != nil {
		return m, err
	}
	m.Pulled = j.Now().UTC().Truncate(time.Second)
	if err := j.Depot.Publish(ctx, m, parts, j.Force); err != nil {
		return m, err
	}
	for _, part := range parts { // a folder's copies have none
		_ = os.Remove(part + fetch.OriginSuffix)
	}
	j.tell(Progress{Step: "done", Text: m.ID() + " is here, and verified"})
	return m, nil
}

// notThere makes what is missing a sentence.
func notThere(err error, what string, a ...any) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf(what+": %w", append(a, err)...)
	}
	return err
}
