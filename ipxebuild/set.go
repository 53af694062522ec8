package ipxebuild

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/nestboot/nestboot/boot"
)

// ScriptName is the name under which stock iPXE looks for a script beside the
// place it was itself loaded from, by TFTP as by HTTP (1.21.1 and 2.0.0).
const ScriptName = "autoexec.ipxe"

// Format tells what a file of a set is for.
type Format string

// The formats. The first five are single files and what the API's downloads
// are named after.
const (
	FormatISO      Format = "iso"        // NAME.iso, CD and USB stick, BIOS and UEFI
	FormatPXE      Format = "pxe"        // NAME.undionly, BIOS by PXE, one file
	FormatEFIAMD64 Format = "efi_amd64"  // NAME.efi, one file
	FormatEFIARM64 Format = "efi_arm64"  // NAME.arm64.efi, one file
	FormatRaw      Format = "raw_amd64"  // NAME.raw, disk image, the bytes of NAME.iso
	FormatChain    Format = "ipxe-chain" // NAME.ipxe, the script; also for DHCP's user class iPXE
	FormatUndionly Format = "undionly"   // NAME/undionly.kpxe, with a user-class rule
	FormatEFIDir   Format = "efi-dir"    // NAME/snponly.efi … with the script beside them
	FormatPXELinux Format = "pxelinux"   // NAME/lpxelinux.0 …
	FormatSigned   Format = "secureboot" // NAME/shimx64.efi … with autoexec.ipxe
	FormatNotice   Format = "notice"     // NAME/NOTICE
	FormatManifest Format = "manifest"   // NAME/manifest.json
)

// FileInfo is what is known of a file before it is rendered.
type FileInfo struct {
	Name     string // as it is asked for: "rack1.efi", "rack1/snponly.efi"
	Format   Format
	HoldsKey bool
}

// Set is a set that can be rendered, file by file. It does not change and may
// be used by several goroutines.
type Set struct {
	cfg      checked
	stock    *Stock
	trusted  *trusted
	script   []byte // that runs in our binaries
	chain    []byte // that is handed to the user class iPXE
	files    []setFile
	missing  []string
	manifest func() ([]byte, error)
}

// setFile is a file and how to make it.
type setFile struct {
	FileInfo
	render func() ([]byte, error)
	same   string // name of a file with the same bytes, if there is one before it
}

// Set checks a Config, all of it, and renders the script. The first set with
// a new root takes the time to patch its trust into the base, some 0.3 s;
// callers at the same time wait for that one.
func (s *Stock) Set(c Config) (*Set, error) {
	cfg, err := s.check(c)
	if err != nil {
		return nil, err
	}
	out := &Set{cfg: cfg, stock: s}
	if err := out.renderScripts(); err != nil {
		return nil, err
	}
	if err := out.plan(); err != nil {
		return nil, fmt.Errorf("set %s: %w", c.Name, err)
	}
	if out.needsBIOS() {
		if out.trusted, err = s.cache.get(trustKey{cfg.release, c.Root}); err != nil {
			return nil, fmt.Errorf("set %s: %w", c.Name, err)
		}
	}
	out.manifest = sync.OnceValues(out.makeManifest)
	return out, nil
}

func (s *Set) renderScripts() (err error) {
	c := scriptConfig{set: s.cfg.Name, url: s.cfg.URL, cert: s.cfg.Cert, key: s.cfg.key, options: s.cfg.Options}
	if s.script, err = c.render(); err != nil {
		return err
	}
	c.foreign = true
	if h, ok := s.base(boot.AMD64, nameKPXE); ok {
		c.marked = markedVersion(h.Version, s.cfg.Root)
	}
	s.chain, err = c.render()
	return err
}

// Name is the set's name.
func (s *Set) Name() string { return s.cfg.Name }

// Version is the version of iPXE that the set is made of.
func (s *Set) Version() string { return s.cfg.release.version }

// Files are the files that the set has, sorted by name.
func (s *Set) Files() []FileInfo {
	out := make([]FileInfo, 0, len(s.files))
	for _, f := range s.files {
		out = append(out, f.FileInfo)
	}
	slices.SortFunc(out, func(a, b FileInfo) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Missing are the files that a set like this could have but for a base that
// is not in the stock or lacks what an option needs, each with the reason and
// what to do, in a line.
func (s *Set) Missing() []string { return slices.Clone(s.missing) }

// Script is the name under which iPXE, loaded from the set's directory, asks
// for its script: 8 hexadecimal digits and ".ipxe". By HTTP it asks beside the
// binary, "rack1/<script>"; loaded by OVMF's PXE it asks for the bare name.
func (s *Set) Script() string { return nameFrom("set", []byte(s.cfg.Name)) }

// Render makes one of Files. The error of a name that is not there is
// fs.ErrNotExist. Same set, same bytes.
func (s *Set) Render(name string) ([]byte, error) {
	for _, f := range s.files {
		if f.Name == name {
			data, err := f.render()
			if err != nil {
				return nil, fmt.Errorf("make %s: %w", name, err)
			}
			return data, nil
		}
	}
	return nil, fmt.Errorf("set %s has no file %.100q: %w", s.cfg.Name, name, fs.ErrNotExist)
}

// Manifest is the set's manifest.json: digest and size of every other file,
// the bases with their origins, root, and the certificate's subject and
// expiry. It renders everything, once.
func (s *Set) Manifest() ([]byte, error) { return s.manifest() }

// base finds a base by name that can do what the options ask for.
func (s *Set) base(arch boot.Arch, names ...string) (held, bool) {
	h, ok := s.cfg.release.efi(arch, names...)
	return h, ok && s.cfg.wants(arch) && h.lack(s.cfg.Options.commands()) == ""
}

// needsBIOS reports whether a file holds a BIOS binary.
func (s *Set) needsBIOS() bool {
	return s.diskBIOS() || slices.ContainsFunc(s.files, func(f setFile) bool {
		return f.Format == FormatPXE || f.Format == FormatUndionly
	})
}

// nameFrom is a file name as long as ScriptName, made of a hash.
func nameFrom(purpose string, seed []byte) string {
	h := sha256.New()
	h.Write([]byte("nestboot " + purpose + "\x00"))
	h.Write(seed)
	return hex.EncodeToString(h.Sum(nil)[:4]) + ".ipxe"
}

// errNoFile is what plan ends with when nothing bootable is left.
var errNoFile = errors.New("no file can be made of it")
