package ipxebuild

import (
	"path"
	"strings"
)

// Kind tells what a base is and so what can be made of it.
type Kind string

// The kinds of base that sets are made of. The first three are iPXE and are
// patched; signed ones never are.
const (
	KindEFI      Kind = "efi"          // UEFI program: snponly.efi, ipxe-amd64.efi, ipxe-arm64.efi
	KindKPXE     Kind = "kpxe"         // BIOS network boot program: undionly.kpxe
	KindLKRN     Kind = "lkrn"         // BIOS Linux boot image: ipxe.lkrn
	KindShim     Kind = "shim"         // signed first stage for Secure Boot
	KindSigned   Kind = "signed"       // signed iPXE, which a shim starts
	KindPXELinux Kind = "pxelinux"     // lpxelinux.0
	KindLDLinux  Kind = "ldlinux"      // ldlinux.c32 for BIOS
	KindIsolinux Kind = "isolinux"     // isolinux.bin
	KindMBR      Kind = "isolinux-mbr" // isohdpfx.bin
)

func (k Kind) project() project {
	switch k {
	case KindEFI, KindKPXE, KindLKRN, KindSigned:
		return projectIPXE
	case KindShim:
		return projectShim
	}
	return projectSyslinux
}

// isIPXE reports whether a base of this kind has a version of iPXE.
func (k Kind) isIPXE() bool { return k.project() == projectIPXE }

// Names of bases.
const (
	nameKPXE     = "undionly.kpxe"
	nameLKRN     = "ipxe.lkrn"
	nameSNP      = "snponly.efi"
	nameAMD64    = "ipxe-amd64.efi"
	nameARM64    = "ipxe-arm64.efi"
	nameEFI      = "ipxe.efi"
	nameShim     = "shimx64.efi"
	namePXELinux = "lpxelinux.0"
	nameLDLinux  = "ldlinux.c32"
	nameIsolinux = "isolinux.bin"
	nameMBR      = "isohdpfx.bin"
)

// kinds are the files that are taken, by name. An .efi that turns out to be
// signed is of KindSigned, whatever stands here.
var kinds = map[string]Kind{
	nameKPXE: KindKPXE, nameLKRN: KindLKRN,
	nameSNP: KindEFI, nameAMD64: KindEFI, nameARM64: KindEFI, nameEFI: KindEFI,
	nameShim: KindShim, "ipxe-shimx64.efi": KindShim, "snponly-shimx64.efi": KindShim, "shimx64.efi.signed": KindShim,
	namePXELinux: KindPXELinux, nameLDLinux: KindLDLinux, nameIsolinux: KindIsolinux, nameMBR: KindMBR,
}

// known reports whether a file of a package is one that is taken.
func known(file string) bool {
	_, ok := kinds[path.Base(file)]
	// syslinux-common has an ldlinux.c32 for BIOS and others for UEFI.
	return ok && (path.Base(file) != nameLDLinux || strings.HasSuffix(file, "modules/bios/"+nameLDLinux))
}
