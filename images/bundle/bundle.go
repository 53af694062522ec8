// Package bundle is the format in which releases cross an air gap: one file, a
// tar archive that is not compressed, signed by the installation that wrote it.
//
//	nestboot-bundle.json   what the bundle holds, in order, each with size and SHA-256
//	nestboot-bundle.sig    an Ed25519 signature over it (RFC 8032), and the public key
//	blobs/<sha256> …       exactly the files that are listed, in that order
//
// The list is signed and every file is in it, so nothing is believed that was not
// signed, and everything is bounded before it is read. It knows nothing of what the
// files mean. Begin at Write and Read.
package bundle

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
)

const (
	indexName     = "nestboot-bundle.json"
	signatureName = "nestboot-bundle.sig"
	maxIndex      = 4 << 20
	maxSignature  = 4 << 10
	maxFiles      = 4096
	maxFile       = 8 << 30
	// domain keeps a signature of a bundle from being one of anything else.
	domain = "nestboot bundle 1\n"
)

// Index is what a bundle holds.
type Index struct {
	Format    int               `json:"format"` // 1
	Created   time.Time         `json:"created_at"`
	Manifests []json.RawMessage `json:"manifests"` // of releases; not read here
	Files     []File            `json:"files"`     // in the order in which they follow
}

// File is one file of a bundle.
type File struct {
	Name   string `json:"name"` // blobs/<sha256> or bases/<folder>/<file>
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// seal is what stands in the signature file.
type seal struct {
	Key       []byte `json:"key"`
	Signature []byte `json:"signature"`
}

// Untrusted is a bundle whose key nobody has said to trust.
type Untrusted struct{ Fingerprint string }

func (e *Untrusted) Error() string {
	return "the bundle is signed by a key that is not trusted here: " + e.Fingerprint +
		"; compare that with what nestctl image export has printed there, and if it is the same give it with --key, or in downloads.bundle_keys of bootd.yaml"
}

// Fingerprint names a key: the SHA-256 of its 32 bytes.
func Fingerprint(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:])
}

var (
	blobName = regexp.MustCompile(`^blobs/([0-9a-f]{64})$`)
	baseName = regexp.MustCompile(`^bases/[A-Za-z0-9][A-Za-z0-9+.~-]{0,99}_[A-Za-z0-9+.~-]{0,99}/[A-Za-z0-9][A-Za-z0-9+.~_-]{0,127}$`)
	digest   = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

func (x Index) validate() error {
	if x.Format != 1 {
		return fmt.Errorf("the bundle has format %d, and this version reads 1: use a newer nestboot", x.Format)
	}
	if len(x.Files) > maxFiles || len(x.Manifests) > maxFiles {
		return fmt.Errorf("the bundle has more than %d files", maxFiles)
	}
	seen := map[string]bool{}
	for _, f := range x.Files {
		m := blobName.FindStringSubmatch(f.Name)
		switch {
		case m == nil && (!baseName.MatchString(f.Name) || strings.Contains(f.Name, "..")), seen[f.Name]:
			return fmt.Errorf("the bundle has a file %.200q, which does not belong there", f.Name)
		case !digest.MatchString(f.SHA256), m != nil && m[1] != f.SHA256, f.Size < 0, f.Size > maxFile:
			return fmt.Errorf("the bundle has no good digest or size for %s", f.Name)
		}
		seen[f.Name] = true
	}
	return nil
}

// Write writes a bundle. open is called for each file, in order; what it returns
// must have the size and digest that the index says, or Write fails.
func Write(w io.Writer, x Index, key ed25519.PrivateKey, open func(File) (io.ReadCloser, error)) error {
	if err := x.validate(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(x, "", " ")
	if err != nil {
		return fmt.Errorf("encode list: %w", err)
	}
	if len(data) > maxIndex {
		return fmt.Errorf("the list of the bundle is longer than %d bytes: export fewer releases at a time", maxIndex)
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return errors.New("the key that signs bundles is no Ed25519 key")
	}
	sealed, err := json.Marshal(seal{Key: public, Signature: ed25519.Sign(key, append([]byte(domain), data...))})
	if err != nil {
		return fmt.Errorf("encode signature: %w", err)
	}
	t := tar.NewWriter(w)
	if err := errors.Join(put(t, indexName, data, x.Created), put(t, signatureName, sealed, x.Created)); err != nil {
		return err
	}
	for _, f := range x.Files {
		if err := writeFile(t, f, x.Created, open); err != nil {
			return fmt.Errorf("write %s: %w", f.Name, err)
		}
	}
	return t.Close()
}

func put(t *tar.Writer, name string, data []byte, at time.Time) error {
	if err := t.WriteHeader(header(name, int64(len(data)), at)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err := t.Write(data)
	return err
}

func header(name string, size int64, at time.Time) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: at.Truncate(time.Second), Format: tar.FormatUSTAR}
}

func writeFile(t *tar.Writer, f File, at time.Time, open func(File) (io.ReadCloser, error)) error {
	in, err := open(f)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // it was only read
	if err := t.WriteHeader(header(f.Name, f.Size, at)); err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.Copy(t, io.TeeReader(in, h)); err != nil {
		return err
	}
	if hex.EncodeToString(h.Sum(nil)) != f.SHA256 {
		return errors.New("it is not what its digest says")
	}
	return nil
}

// Reader is a bundle of which the list is verified and the files are still to
// come.
type Reader struct {
	Index
	Key  string // fingerprint of who signed
	tar  *tar.Reader
	next int
}

// Read reads and verifies the list. trusted says whether a key's bundles are
// taken; if not, the error is Untrusted.
func Read(r io.Reader, trusted func(fingerprint string) bool) (*Reader, error) {
	b := &Reader{tar: tar.NewReader(r)}
	data, err := b.entry(indexName, maxIndex)
	if err != nil {
		return nil, err
	}
	sealed, err := b.entry(signatureName, maxSignature)
	if err != nil {
		return nil, err
	}
	var s seal
	if err := json.Unmarshal(sealed, &s); err != nil || len(s.Key) != ed25519.PublicKeySize {
		return nil, errors.New("the signature of the bundle cannot be read")
	}
	if !ed25519.Verify(s.Key, append([]byte(domain), data...), s.Signature) {
		return nil, errors.New("the list of the bundle is not what was signed: it was changed or damaged on its way")
	}
	b.Key = Fingerprint(s.Key)
	if !trusted(b.Key) {
		return nil, &Untrusted{Fingerprint: b.Key}
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&b.Index); err != nil {
		return nil, fmt.Errorf("read list of bundle: %w", err)
	}
	return b, b.validate()
}

// entry reads a small file that must come next.
func (b *Reader) entry(name string, limit int64) ([]byte, error) {
	size, err := b.header(name)
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%s of the bundle is longer than %d bytes", name, limit)
	}
	data, err := io.ReadAll(b.tar)
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	return data, nil
}

// header reads the header of a regular file of that name. Everything that tar
// knows besides is refused: links, sparse files, folders.
func (b *Reader) header(name string) (int64, error) {
	h, err := b.tar.Next()
	if errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("the bundle ends before %s: copy it again", name)
	}
	if err != nil {
		return 0, fmt.Errorf("read bundle: %w", err)
	}
	if h.Name != name || h.Typeflag != tar.TypeReg || len(h.PAXRecords) > 0 {
		return 0, fmt.Errorf("the bundle has %.200q where %s belongs", h.Name, name)
	}
	return h.Size, nil
}

// Next writes the next file to w and returns it, after comparing size and
// digest; what was written before an error is not the file. After the last one it
// returns io.EOF, and only then the bundle was whole.
func (b *Reader) Next(open func(File) (io.WriteCloser, error)) (File, error) {
	if b.next == len(b.Files) {
		if _, err := b.tar.Next(); !errors.Is(err, io.EOF) {
			return File{}, errors.New("the bundle holds more than its list says")
		}
		return File{}, io.EOF
	}
	f := b.Files[b.next]
	b.next++
	size, err := b.header(f.Name)
	if err != nil {
		return f, err
	}
	if size != f.Size {
		return f, fmt.Errorf("%s of the bundle has %d bytes, and %d in its list", f.Name, size, f.Size)
	}
	w, err := open(f)
	if err != nil {
		return f, err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(w, h), b.tar)
	if err := errors.Join(err, w.Close()); err != nil {
		return f, fmt.Errorf("take %s out of the bundle: %w", f.Name, err)
	}
	if hex.EncodeToString(h.Sum(nil)) != f.SHA256 {
		return f, fmt.Errorf("%s of the bundle is not what was signed: it was changed or damaged on its way", f.Name)
	}
	return f, nil
}
