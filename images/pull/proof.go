package pull

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/nestboot/nestboot/images/depot"
	"github.com/nestboot/nestboot/images/release"
	"github.com/nestboot/nestboot/images/signature"
)

// proof is what the files of a release are measured by.
type proof struct {
	ring   *signature.Keyring        // nil: there are no signatures
	sums   map[string]signature.Sums // by path on the mirror; nil: there is no list
	signed []signature.Signed        // every signature that was verified
}

// proof fetches keys and lists, and verifies the lists.
func (j *job) proof(ctx context.Context) (*proof, error) {
	g := j.system.Signature
	p := &proof{}
	if g.Kind != release.Detached && g.Kind != release.Digests {
		return p, nil
	}
	if err := j.keyring(ctx, p); err != nil {
		return nil, err
	}
	if g.Kind == release.Digests {
		return p, j.lists(ctx, p)
	}
	return p, nil
}

// keyring finds public keys: those that were given or that the description
// names, together with those of earlier pulls. Which of them count, the
// fingerprints say. They are kept at once, whatever becomes of this pull: a mirror
// may show a revocation today and hold it back tomorrow.
func (j *job) keyring(ctx context.Context, p *proof) error {
	given, fetchErr := []byte(j.Keys), error(nil)
	if j.Keys == "" {
		given, fetchErr = j.small(ctx, j.system.Expand(j.system.Signature.Keys, j.ref), signature.MaxKeys)
	}
	j.keysMu.Lock()
	defer j.keysMu.Unlock()
	kept, err := j.keptKeys()
	if err != nil {
		return err
	}
	switch {
	case fetchErr == nil:
		if p.ring, err = signature.ReadKeys(given, j.system.Signature.Fingerprints); err != nil {
			return fmt.Errorf("public keys of %s: %w", j.system.Name, err)
		}
	case kept == nil || ctx.Err() != nil:
		return fmt.Errorf("get the public keys of %s (give them with --keys FILE, if they are to be had elsewhere): %w", j.system.Name, fetchErr)
	default:
		j.tell(Progress{Step: "version", Text: fmt.Sprintf("the public keys of %s are those of an earlier pull: %v", j.system.Name, fetchErr)})
		p.ring = kept
		return nil
	}
	if kept != nil {
		p.ring.Add(kept)
	}
	data, err := p.ring.Encode()
	if err != nil {
		return err
	}
	return j.Depot.SaveKeys(j.system.Name, data)
}

// keptKeys are those of earlier pulls; nil if none of them is pinned today.
func (j *job) keptKeys() (*signature.Keyring, error) {
	data, err := j.Depot.Keys(j.system.Name)
	if err != nil || data == nil {
		return nil, err
	}
	ring, err := signature.ReadKeys(data, j.system.Signature.Fingerprints)
	var refusal *signature.Refusal
	if errors.As(err, &refusal) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the public keys of %s that earlier pulls have kept in images/keys: restore the file, or remove it, and with it what it knew of revocations: %w", j.system.Name, err)
	}
	return ring, nil
}

// lists fetches the lists of digests. One that is not signed must be in one before
// it.
func (j *job) lists(ctx context.Context, p *proof) error {
	p.sums = map[string]signature.Sums{}
	for _, l := range j.system.Signature.Lists {
		file := j.system.Expand(l.File, j.ref)
		data, err := j.source.Small(ctx, file, signature.MaxList)
		if err != nil {
			return notThere(err, "%s has no %s of %s", j.source, path.Base(file), j.ref)
		}
		if l.Signature != "" {
			data, err = j.signedList(ctx, p, l, data)
		} else {
			err = matches(file, data, p.sums[file])
		}
		if line := j.system.Expand(l.MustMatch, j.ref); err == nil && line != "" && !slices.Contains(strings.Split(string(data), "\n"), line) {
			err = &signature.Refusal{Code: signature.CodeBad, Reason: fmt.Sprintf("it is the maker's, but not that of %s: no line of it is %q", j.ref, line)}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		entries, err := signature.ParseList(data)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for name, s := range entries {
			p.sums[path.Join(path.Dir(file), name)] = s
		}
	}
	return nil
}

func (j *job) signedList(ctx context.Context, p *proof, l release.List, data []byte) ([]byte, error) {
	if l.Signature == release.Inline {
		text, s, err := p.ring.Inline(data, j.Now())
		p.signed = append(p.signed, s)
		return text, err
	}
	sig, err := j.source.Small(ctx, j.system.Expand(l.Signature, j.ref), signature.MaxSignature)
	if err != nil {
		return nil, notThere(err, "it is not signed")
	}
	s, err := p.ring.Detached(bytes.NewReader(data), sig, j.Now())
	p.signed = append(p.signed, s)
	return data, err
}

// maxSpread is how far apart a maker signs the files of one release.
const maxSpread = 3 * 24 * time.Hour

// oldest is the signature that tells how fresh a release is; nil if there is none.
// Files that were signed days apart are of more than one release, of which the
// older one's faults are back.
func (j *job) oldest(p *proof) (*signature.Signed, error) {
	if len(p.signed) == 0 {
		return nil, nil
	}
	byDay := func(a, b signature.Signed) int { return a.At.Compare(b.At) }
	first, last := slices.MinFunc(p.signed, byDay), slices.MaxFunc(p.signed, byDay)
	if !j.Force && last.At.Sub(first.At) > maxSpread {
		return nil, &signature.Refusal{Code: signature.CodeDowngrade, Reason: fmt.Sprintf(
			"the files of %s were signed on days from %s to %s: a mirror may have mixed an older release in; with --force they come in all the same",
			j.ref, first.At.Format(time.DateOnly), last.At.Format(time.DateOnly))}
	}
	return &first, nil
}

// matches compares a small file with its digests.
func matches(name string, data []byte, want signature.Sums) error {
	s256, s512 := sha256.Sum256(data), sha512.Sum512(data)
	return compare(name, signature.Sums{SHA256: hex.EncodeToString(s256[:]), SHA512: hex.EncodeToString(s512[:])}, want)
}

func compare(name string, got, want signature.Sums) error {
	if want == (signature.Sums{}) {
		return &signature.Refusal{Code: signature.CodeBad, Reason: name + " is in no list that is signed"}
	}
	if want.SHA256 != "" && want.SHA256 != got.SHA256 || want.SHA512 != "" && want.SHA512 != got.SHA512 {
		return &signature.Refusal{Code: signature.CodeBad, Reason: name + " is not what the signed list has: it was changed or damaged on its way"}
	}
	return nil
}

// file fetches one file and verifies it where it lies. It returns the path of
// the part, which nobody has seen yet.
func (j *job) file(ctx context.Context, file string, p *proof) (depot.File, string, error) {
	name := path.Base(file)
	var sig []byte
	if j.system.Signature.Kind == release.Detached { // before a long download: without it, that is in vain
		var err error
		if sig, err = j.source.Small(ctx, file+j.system.Signature.Suffix, signature.MaxSignature); err != nil {
			return depot.File{}, "", notThere(err, "%s has no signature of %s of %s", j.source, name, j.ref)
		}
		if err := p.ring.Promising(sig, j.Now()); err != nil {
			return depot.File{}, "", fmt.Errorf("%s: %w", name, err)
		}
	}
	part := j.Depot.Partial(j.ref, file)
	err := j.source.Large(ctx, file, part, depot.MaxFile, func(done, total int64) {
		j.tell(Progress{Step: "file", File: name, Done: done, Total: total})
	})
	if err != nil {
		return depot.File{}, "", notThere(err, "%s has no %s of %s", j.source, name, j.ref)
	}
	j.tell(Progress{Step: "verify", File: name})
	f, err := j.verify(ctx, name, file, part, sig, p)
	if err != nil && ctx.Err() == nil { // what is wrong is not gone on with
		err = errors.Join(err, os.Remove(part))
	}
	return f, part, err
}

// verify reads a part once, for digests and signature.
func (j *job) verify(ctx context.Context, name, file, part string, sig []byte, p *proof) (depot.File, error) {
	in, err := os.Open(part)
	if err != nil {
		return depot.File{}, fmt.Errorf("verify %s: %w", name, err)
	}
	defer func() { _ = in.Close() }() // it was only read
	s256, s512, size := sha256.New(), sha512.New(), &counter{ctx: ctx}
	all := []io.Writer{size, s256}
	if p.sums != nil && p.sums[file].SHA512 != "" {
		all = append(all, s512)
	}
	r := io.TeeReader(in, io.MultiWriter(all...))
	if sig != nil {
		s, err := p.ring.Detached(r, sig, j.Now())
		if err != nil {
			return depot.File{}, fmt.Errorf("%s: %w", name, err)
		}
		p.signed = append(p.signed, s)
	} else if _, err := io.Copy(io.Discard, r); err != nil {
		return depot.File{}, fmt.Errorf("verify %s: %w", name, err)
	}
	f := depot.File{Name: name, Size: size.n, SHA256: hexOf(s256)}
	if p.sums != nil {
		if err := compare(file, signature.Sums{SHA256: f.SHA256, SHA512: hexOf(s512)}, p.sums[file]); err != nil {
			return f, err
		}
	}
	if want := j.SHA256[name]; want != "" && !strings.EqualFold(want, f.SHA256) {
		return f, &signature.Refusal{Code: signature.CodeBad, Reason: fmt.Sprintf("%s has the SHA-256 %s, not the given %s", name, f.SHA256, want)}
	}
	return f, nil
}

func hexOf(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// counter counts bytes, until its context ends. It lives as long as one call of
// verify.
type counter struct {
	ctx context.Context
	n   int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), c.ctx.Err()
}
