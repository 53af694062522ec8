package ipxebuild

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/nestboot/nestboot/boot"
)

// Names of files in a set, beside those of the bases.
const (
	noticeName   = "NOTICE"
	manifestName = "manifest.json"
	initrdName   = "script.ipxe" // the script beside ipxe.lkrn
)

const (
	installIPXE     = "install Debian's package ipxe 1.21.1 or newer"
	installSyslinux = "install Debian's packages pxelinux, isolinux and syslinux-common"
)

// plan lists the files, and what is missing. At least one program must be left.
func (s *Set) plan() error {
	if s.cfg.wants(boot.AMD64) {
		s.planAMD64()
	}
	if s.cfg.wants(boot.ARM64) {
		s.planARM64()
	}
	s.planDisk()
	if len(s.files) == 0 {
		return fmt.Errorf("iPXE %s: %w: %s", s.cfg.release.version, errNoFile, strings.Join(s.missing, "; "))
	}
	if s.hasDir() {
		s.add(s.dir(s.Script()), FormatEFIDir, s.fixed(s.script), true)
	}
	s.add(s.cfg.Name+".ipxe", FormatChain, s.fixed(s.chain), true)
	s.add(s.dir(noticeName), FormatNotice, func() ([]byte, error) { return s.notice(), nil }, false)
	s.add(s.dir(manifestName), FormatManifest, func() ([]byte, error) { return s.manifest() }, false)
	return nil
}

// add lists a file. script says whether the set's script is in it.
func (s *Set) add(name string, f Format, render func() ([]byte, error), script bool) {
	info := FileInfo{Name: name, Format: f, HoldsKey: script && s.cfg.key != nil}
	s.files = append(s.files, setFile{FileInfo: info, render: render})
}

func (s *Set) dir(file string) string { return s.cfg.Name + "/" + file }

func (s *Set) fixed(data []byte) func() ([]byte, error) {
	return func() ([]byte, error) { return bytes.Clone(data), nil }
}

func (s *Set) miss(what, format string, args ...any) {
	s.missing = append(s.missing, what+": "+fmt.Sprintf(format, args...))
}

// need finds a base for a file, or notes why there is none.
func (s *Set) need(what string, arch boot.Arch, names ...string) (held, bool) {
	h, ok := s.cfg.release.efi(arch, names...)
	if !ok {
		s.miss(what, "no %s of iPXE %s: %s", names[0], s.cfg.release.version, installIPXE)
		return held{}, false
	}
	if c := h.lack(s.cfg.Options.commands()); c != "" {
		s.miss(what, "%s of iPXE %s has no command %s, which an option of the set needs", h.Name, h.Version, c)
		return held{}, false
	}
	return h, true
}

func (s *Set) planAMD64() {
	name := s.cfg.Name
	if h, ok := s.need(name+".efi", boot.AMD64, nameSNP, nameAMD64, nameEFI); ok {
		s.add(name+".efi", FormatEFIAMD64, func() ([]byte, error) { return s.singleEFI(h) }, true)
	}
	for _, n := range [][]string{{nameSNP}, {nameAMD64, nameEFI}} {
		s.planEFI(boot.AMD64, n...)
	}
	if _, ok := s.need(name+".undionly", boot.AMD64, nameLKRN); ok {
		s.add(name+".undionly", FormatPXE, s.singleBIOS, true)
		s.planPXELinux()
	}
	if _, ok := s.need(s.dir(nameKPXE), boot.AMD64, nameKPXE); ok {
		s.add(s.dir(nameKPXE), FormatUndionly, func() ([]byte, error) { return bytes.Clone(s.trusted.kpxe), nil }, false)
	}
	s.planSigned()
}

func (s *Set) planARM64() {
	name := s.cfg.Name + ".arm64.efi"
	if h, ok := s.need(name, boot.ARM64, nameARM64, nameEFI); ok {
		s.add(name, FormatEFIARM64, func() ([]byte, error) { return s.singleEFI(h) }, true)
		s.planEFI(boot.ARM64, nameARM64, nameEFI)
	}
}

// planEFI lists a binary of the directory with the script beside it, under
// the first of the names.
func (s *Set) planEFI(arch boot.Arch, names ...string) {
	if h, ok := s.need(s.dir(names[0]), arch, names...); ok {
		s.add(s.dir(names[0]), FormatEFIDir, func() ([]byte, error) { return s.patched(h, s.Script()), nil }, false)
	}
}

// hasDir reports whether the directory for UEFI has a binary.
func (s *Set) hasDir() bool {
	for _, f := range s.files {
		if f.Format == FormatEFIDir {
			return true
		}
	}
	return false
}

func (s *Set) planPXELinux() {
	pxelinux, ok1 := s.stock.syslinux[KindPXELinux]
	ldlinux, ok2 := s.stock.syslinux[KindLDLinux]
	if !ok1 || !ok2 {
		s.miss(s.dir(namePXELinux), "no %s and %s of the same build: %s", namePXELinux, nameLDLinux, installSyslinux)
		return
	}
	s.add(s.dir(namePXELinux), FormatPXELinux, s.fixed(pxelinux.Data), false)
	s.add(s.dir(nameLDLinux), FormatPXELinux, s.fixed(ldlinux.Data), false)
	s.add(s.dir("pxelinux.cfg/default"), FormatPXELinux, s.fixed(s.loaderConfig()), false)
	s.add(s.dir(nameLKRN), FormatPXELinux, func() ([]byte, error) { return bytes.Clone(s.trusted.lkrn), nil }, false)
	s.add(s.dir(initrdName), FormatPXELinux, s.fixed(s.script), true)
}

// planSigned lists the files for Secure Boot, as they were signed. The trust
// root comes from the firmware (TlsCaCertificate), the script from beside.
func (s *Set) planSigned() {
	h, ok := s.signedBase()
	if !ok {
		return
	}
	if s.stock.shim == nil {
		s.miss(s.dir(nameShim), "there is a signed %s but no shim that starts it: put shimx64.efi beside it", h.Name)
		return
	}
	shim := *s.stock.shim
	s.add(s.dir(nameShim), FormatSigned, s.fixed(shim.Data), false)
	s.add(s.dir(shim.partner), FormatSigned, s.fixed(h.Data), false)
	s.add(s.dir(ScriptName), FormatSigned, s.fixed(s.script), true)
}

// signedBase is the signed iPXE of the release.
func (s *Set) signedBase() (held, bool) {
	for _, name := range []string{nameEFI, nameAMD64, nameSNP} {
		if h, ok := s.cfg.release.signed[name]; ok && h.Arch == boot.AMD64 {
			return h, true
		}
	}
	return held{}, false
}

// planDisk lists the image, if there is a UEFI program for it.
func (s *Set) planDisk() {
	_, amd64 := s.base(boot.AMD64, nameAMD64, nameEFI, nameSNP)
	_, arm64 := s.base(boot.ARM64, nameARM64, nameEFI)
	iso, raw := s.cfg.Name+".iso", s.cfg.Name+".raw"
	if !amd64 && !arm64 {
		s.miss(iso+" and "+raw, "no UEFI program of iPXE %s for it: %s", s.cfg.release.version, installIPXE)
		return
	}
	if s.cfg.wants(boot.AMD64) && !s.diskBIOS() {
		if _, ok := s.base(boot.AMD64, nameLKRN); ok {
			s.miss(iso+" and "+raw+" as CD and stick in BIOS, UEFI boots them", "no %s, %s and %s of the same build: %s", nameIsolinux, nameMBR, nameLDLinux, installSyslinux)
		} else {
			s.miss(iso+" and "+raw+" as CD and stick in BIOS, UEFI boots them", "no %s for it, see above", nameLKRN)
		}
	}
	s.add(iso, FormatISO, s.disk, true)
	s.add(raw, FormatRaw, s.disk, true)
	s.files[len(s.files)-1].same = iso
}

// diskBIOS reports whether the image can boot in BIOS.
func (s *Set) diskBIOS() bool {
	_, ok := s.base(boot.AMD64, nameLKRN)
	for _, k := range []Kind{KindIsolinux, KindMBR, KindLDLinux} {
		_, have := s.stock.syslinux[k]
		ok = ok && have
	}
	return ok
}
