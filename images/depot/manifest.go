package depot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"time"

	"github.com/nestboot/nestboot/images/release"
	"github.com/nestboot/nestboot/images/signature"
)

// Limits of what a manifest may say.
const (
	MaxManifest = 64 << 10 // bytes
	MaxFile     = 8 << 30  // bytes of one file of a release
	maxInitrds  = 16
	maxArgs     = 64
)

// Manifest is one release as it lies here: what boots it, and what proved it.
type Manifest struct {
	Format int `json:"format"` // 1
	release.Ref
	Kernel  File      `json:"kernel"`
	Initrds []File    `json:"initrds"` // in the order in which the kernel unpacks them
	Args    []string  `json:"args"`    // kernel arguments
	Order   string    `json:"order"`   // how its versions are compared
	Source  string    `json:"source"`  // where it was pulled from
	Pulled  time.Time `json:"pulled_at"`
	Proof   Proof     `json:"proof"`
}

// File is one file of a release.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Proof says what the files were verified by when they came.
type Proof struct {
	Kind   string            `json:"kind"`             // of release.Signature
	Signed *signature.Signed `json:"signed,omitempty"` // by whom, where there is a signature
}

// Files are all files of the release, the kernel first.
func (m Manifest) Files() []File { return append([]File{m.Kernel}, m.Initrds...) }

// Size is how many bytes they have together.
func (m Manifest) Size() int64 {
	var n int64
	for _, f := range m.Files() {
		n += f.Size
	}
	return n
}

// ReadManifest reads what Encode wrote. What it accepts names nothing outside
// of a depot.
func ReadManifest(data []byte) (Manifest, error) {
	var m Manifest
	if len(data) > MaxManifest {
		return m, fmt.Errorf("the manifest is longer than %d bytes", MaxManifest)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("read manifest: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return m, errors.New("read manifest: something follows it")
	}
	return m, m.Validate()
}

// Encode is the manifest as it lies on disk.
func (m Manifest) Encode() ([]byte, error) {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return append(data, '\n'), nil
}

var (
	digestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)
	fileName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+~_-]{0,127}$`)
	argForm    = regexp.MustCompile(`^[!-~]{1,256}$`)
)

// Validate reports a manifest that no release could have.
func (m Manifest) Validate() error {
	if m.Format != 1 {
		return fmt.Errorf("the manifest has format %d, and this version reads 1: use a newer nestboot", m.Format)
	}
	if err := m.Ref.Validate(); err != nil {
		return err
	}
	if m.Version == release.CurrentVersion {
		return errors.New("the manifest has no version")
	}
	if m.Order != release.OrderDebian && m.Order != release.OrderSemver {
		return fmt.Errorf("order %.20q is unknown", m.Order)
	}
	if len(m.Initrds) > maxInitrds || len(m.Args) > maxArgs {
		return fmt.Errorf("more than %d initrds or %d arguments", maxInitrds, maxArgs)
	}
	for _, a := range m.Args {
		if !argForm.MatchString(a) {
			return fmt.Errorf("kernel argument %.100q is not one word", a)
		}
	}
	for _, f := range m.Files() {
		if err := f.validate(); err != nil {
			return err
		}
	}
	return nil
}

func (f File) validate() error {
	switch {
	case !fileName.MatchString(f.Name) || path.Base(f.Name) != f.Name:
		return fmt.Errorf("%.100q is not the name of a file", f.Name)
	case !digestForm.MatchString(f.SHA256):
		return fmt.Errorf("%s: %.100q is not a SHA-256", f.Name, f.SHA256)
	case f.Size < 1 || f.Size > MaxFile:
		return fmt.Errorf("%s: a size of %d bytes is not between 1 and %d", f.Name, f.Size, int64(MaxFile))
	}
	return nil
}
