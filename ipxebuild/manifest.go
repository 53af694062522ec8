package ipxebuild

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// manifest is manifest.json. There is no time of making in it: same inputs,
// same bytes.
type manifest struct {
	Set         string               `json:"set"`
	URL         string               `json:"url"`
	IPXE        string               `json:"ipxe"`
	Root        string               `json:"root_sha256"`
	Certificate *manifestCertificate `json:"certificate"` // null: keyless
	Options     Options              `json:"options"`
	Files       []manifestFile       `json:"files"`
	Missing     []string             `json:"missing,omitempty"`
	Bases       []manifestBase       `json:"bases"`
}

type manifestCertificate struct {
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"not_after"`
	SHA256   string    `json:"sha256"`
	Key      KeyType   `json:"key"`
}

type manifestFile struct {
	Name     string `json:"name"`
	Format   Format `json:"format"`
	Size     int    `json:"size"`
	SHA256   string `json:"sha256"`
	HoldsKey bool   `json:"holds_key"`
}

type manifestBase struct {
	Origin
	Files map[string]string `json:"files"` // SHA-256 by name, as they came
}

// makeManifest renders everything.
func (s *Set) makeManifest() ([]byte, error) {
	files := make([]manifestFile, 0, len(s.files))
	err := s.each(func(f setFile, data []byte) error {
		files = append(files, describeFile(f, data, hexDigest(data)))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.encodeManifest(files)
}

// each renders the files, the manifest excluded, one after the other; those
// with the same bytes once.
func (s *Set) each(f func(setFile, []byte) error) error {
	shared := map[string][]byte{}
	for _, x := range s.files {
		if x.Format == FormatManifest {
			continue
		}
		data, ok := shared[x.same]
		if !ok {
			var err error
			if data, err = x.render(); err != nil {
				return fmt.Errorf("make %s: %w", x.Name, err)
			}
		}
		if x.Format == FormatISO {
			shared[x.Name] = data
		}
		if err := f(x, data); err != nil {
			return err
		}
	}
	return nil
}

func describeFile(f setFile, data []byte, sum string) manifestFile {
	return manifestFile{Name: f.Name, Format: f.Format, Size: len(data), SHA256: sum, HoldsKey: f.HoldsKey}
}

// encodeManifest is the manifest of a set with these files.
func (s *Set) encodeManifest(files []manifestFile) ([]byte, error) {
	slices.SortFunc(files, func(a, b manifestFile) int { return strings.Compare(a.Name, b.Name) })
	m := manifest{
		Set: s.cfg.Name, URL: s.cfg.URL, IPXE: s.cfg.release.version, Root: hex.EncodeToString(s.cfg.Root[:]),
		Options: s.cfg.Options, Files: files, Missing: s.missing,
	}
	if c := s.cfg.cert; c != nil {
		k, err := clientKeyType(c)
		if err != nil {
			return nil, fmt.Errorf("manifest of set %s: %w", s.cfg.Name, err)
		}
		m.Certificate = &manifestCertificate{c.Subject.String(), c.NotAfter.UTC(), hexDigest(c.Raw), k}
	}
	for _, g := range s.origins() {
		b := manifestBase{Origin: g.from.Origin, Files: map[string]string{}}
		for _, h := range g.bases {
			b.Files[h.Name] = hex.EncodeToString(h.SHA256[:])
		}
		m.Bases = append(m.Bases, b)
	}
	out, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("manifest of set %s: %w", s.cfg.Name, err)
	}
	return append(out, '\n'), nil
}

func hexDigest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
