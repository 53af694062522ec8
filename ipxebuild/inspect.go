package ipxebuild

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/ipxebuild/bios"
	"github.com/nestboot/nestboot/ipxebuild/disk"
	"github.com/nestboot/nestboot/ipxebuild/single"
)

// Report is what a file says of itself.
type Report struct {
	Format   string    `json:"format"`            // a Format, or "ipxe-efi", "ipxe-kpxe", "ipxe-lkrn", "signed-efi", "script"
	Path     string    `json:"path,omitempty"`    // of a part
	Version  string    `json:"version,omitempty"` // of iPXE; empty: no iPXE is inside, or it does not say
	Root     string    `json:"root,omitempty"`    // SHA-256 of the trusted root, hexadecimal; RootStock or RootUnknown; empty: no iPXE is inside
	Set      string    `json:"set,omitempty"`     // name of the set
	URL      string    `json:"url,omitempty"`     // that the script asks
	Subject  string    `json:"subject,omitempty"` // of the client certificate
	Expires  time.Time `json:"expires,omitzero"`  // of the client certificate
	HoldsKey bool      `json:"holds_key"`         // a private key is inside
	Parts    []Report  `json:"parts,omitempty"`   // of an image: what it starts, and its script
}

// What Report.Root is when it is not a root of somebody's own.
const (
	RootStock    = "stock (ipxe.org)"
	RootFirmware = "firmware (TlsCaCertificate)" // of a signed iPXE
	RootUnknown  = "unknown"
)

// maxInspect is the largest file that is looked at.
const maxInspect = disk.MaxSize

// maxManifest is the largest manifest that is read: ours have 6 kB, and a list
// of empty objects takes many times its size in memory.
const maxManifest = 256 << 10

// Inspect reads a file of any format back. name is for messages and never
// decides: the bytes do. Allocations are bounded to 64 MiB or so. A raw disk
// image is the same as a hybrid ISO and reported as that.
func Inspect(name string, data []byte) (Report, error) {
	r, err := inspect(data)
	if err != nil {
		return Report{}, fmt.Errorf("inspect %s: %w", name, err)
	}
	return r, nil
}

func inspect(data []byte) (Report, error) {
	if len(data) > maxInspect {
		return Report{}, fmt.Errorf("%d bytes, more than any boot artifact", len(data))
	}
	switch {
	case isScript(data):
		return inspectScript(data)
	case len(data) > 0 && data[0] == '{':
		return inspectManifest(data)
	}
	if c, err := disk.Read(data); !errors.Is(err, disk.ErrNotDisk) {
		if err != nil {
			return Report{}, err
		}
		return inspectDisk(c)
	}
	if p, err := single.ReadBIOS(data); !errors.Is(err, single.ErrNotSingle) {
		if err != nil {
			return Report{}, err
		}
		return join(FormatPXE, p.LKRN, p.Script)
	}
	if len(data) > maxBase {
		return Report{}, errors.New("not a format that nestboot makes")
	}
	if len(data) > 1 && string(data[:2]) == "MZ" && !isLinux(data) {
		return inspectEFI(data)
	}
	return inspectBIOS(data)
}

// join reports on a single file by its two parts.
func join(f Format, program, script []byte) (Report, error) {
	r, err := inspect(program)
	if err != nil {
		return Report{}, fmt.Errorf("iPXE inside: %w", err)
	}
	s, err := inspectScript(script)
	if err != nil {
		return Report{}, fmt.Errorf("script inside: %w", err)
	}
	s.Format, s.Version, s.Root = string(f), r.Version, r.Root
	return s, nil
}

func inspectEFI(data []byte) (Report, error) {
	if p, err := single.ReadEFI(data); !errors.Is(err, single.ErrNotSingle) {
		if err != nil {
			return Report{}, err
		}
		f := FormatEFIAMD64
		if p.Arch == boot.ARM64 {
			f = FormatEFIARM64
		}
		if _, err := single.ReadEFI(p.IPXE); err == nil {
			return Report{}, errors.New("a single file inside a single file: not a format that nestboot makes")
		}
		return join(f, p.IPXE, p.Script)
	}
	p, err := readPE(data)
	if err != nil {
		return Report{}, fmt.Errorf("UEFI program: %w", err)
	}
	r := Report{Format: "ipxe-efi", Version: sbatVersion(data), Root: rootOf(data, p.pointer)}
	if r.Version == "" {
		r.Version = plainVersion(data)
	}
	switch {
	case p.signed && r.Version == "": // a shim, or somebody else's
		r.Format, r.Root = "signed-efi", ""
	case p.signed:
		r.Format, r.Root = "signed-efi", RootFirmware
	case r.Version == "":
		return Report{}, errors.New("a UEFI program, but not iPXE")
	}
	return r, nil
}

// isLinux reports whether data is a Linux boot image, which may begin as a PE
// file too.
func isLinux(data []byte) bool { return len(data) > 0x206 && string(data[0x202:0x206]) == "HdrS" }

func inspectBIOS(data []byte) (Report, error) {
	m, err := bios.Read(data)
	if err != nil {
		return Report{}, fmt.Errorf("not a format that nestboot makes; taken for a BIOS program: %w", err)
	}
	code := m.Payload()
	return Report{Format: "ipxe-" + string(m.Kind()), Version: plainVersion(code), Root: rootOf(code, biosPointer)}, nil
}

// rootOf finds the trusted root in iPXE's code.
func rootOf(code []byte, pointer func(int) []byte) string {
	root, ok := locateRoot(code, pointer)
	text := hex.EncodeToString(root[:])
	switch {
	case !ok:
		return RootUnknown
	case text == stockFingerprint:
		return RootStock
	}
	return text
}

// inspectDisk reports on what an image starts. What all agree on stands above.
func inspectDisk(c disk.Contents) (Report, error) {
	out := Report{Format: string(FormatISO)}
	for _, f := range append(c.ISO[:len(c.ISO):len(c.ISO)], c.ESP...) {
		starts := f.Path == nameLKRN || f.Path == initrdName || len(f.Data) > 1 && string(f.Data[:2]) == "MZ"
		if !starts {
			continue
		}
		if len(out.Parts) == maxParts || len(f.Data) > maxBase {
			return Report{}, errors.New("more or larger programs than nestboot puts in an image")
		}
		r, err := inspect(f.Data)
		if err != nil {
			return Report{}, fmt.Errorf("%s: %w", f.Path, err)
		}
		r.Path = f.Path
		out.Parts = append(out.Parts, r)
		out.HoldsKey = out.HoldsKey || r.HoldsKey
	}
	for i, get := range []func(*Report) *string{
		func(r *Report) *string { return &r.Version }, func(r *Report) *string { return &r.Root },
		func(r *Report) *string { return &r.Set }, func(r *Report) *string { return &r.URL },
		func(r *Report) *string { return &r.Subject },
	} {
		v, same := common(out.Parts, get)
		*get(&out) = v
		if i == 4 && same {
			out.Expires = earliest(out.Parts)
		}
	}
	return out, nil
}

// maxParts is how many programs and scripts an image of ours has: four.
const maxParts = 8

// common is what all parts that say anything agree on; "differs" if they don't.
func common(parts []Report, get func(*Report) *string) (string, bool) {
	out := ""
	for i := range parts {
		switch v := *get(&parts[i]); {
		case v == "" || v == out:
		case out == "":
			out = v
		default:
			return "differs", false
		}
	}
	return out, true
}

func earliest(parts []Report) (out time.Time) {
	for _, p := range parts {
		if !p.Expires.IsZero() && (out.IsZero() || p.Expires.Before(out)) {
			out = p.Expires
		}
	}
	return out
}

func inspectManifest(data []byte) (Report, error) {
	if len(data) > maxManifest {
		return Report{}, fmt.Errorf("JSON of %d bytes, too much for a manifest", len(data))
	}
	var m manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return Report{}, fmt.Errorf("JSON, but not a manifest: %w", err)
	}
	if m.Set == "" || len(m.Files) == 0 {
		return Report{}, errors.New("JSON, but not a manifest: it has no set or no files")
	}
	r := Report{Format: string(FormatManifest), Version: m.IPXE, Root: m.Root, Set: m.Set, URL: m.URL}
	if m.Certificate != nil {
		r.Subject, r.Expires = m.Certificate.Subject, m.Certificate.NotAfter
	}
	return r, nil
}
