package main

import (
	"path"

	"github.com/nestboot/nestboot/ipxebuild"
)

// use is what a file of a set is for. archs is which firmware DHCP hands it to
// (option 93, RFC 4578), empty for a file that nobody handles: those that do
// fetch it.
type use struct{ what, archs string }

// useOf knows the files of a set by their format, and those of a folder that
// DHCP names by their own name.
func useOf(name string, f ipxebuild.Format) use {
	const uefi, arm = "7, 9; HTTP 16", "11; HTTP 19"
	switch f {
	case ipxebuild.FormatISO:
		return use{"CD or USB stick, BIOS and UEFI", "-"}
	case ipxebuild.FormatRaw:
		return use{"disk, BIOS and UEFI", "-"}
	case ipxebuild.FormatPXE:
		return use{"BIOS, PXE", "0"}
	case ipxebuild.FormatEFIAMD64:
		return use{"UEFI x86-64, PXE and HTTP Boot", uefi}
	case ipxebuild.FormatEFIARM64:
		return use{"UEFI arm64, PXE and HTTP Boot", arm}
	case ipxebuild.FormatChain:
		return use{"an iPXE that is there already", "user class iPXE"}
	case ipxebuild.FormatUndionly:
		return use{"BIOS, PXE, with the card's own driver; needs a rule for user class iPXE", "0"}
	case ipxebuild.FormatNotice:
		return use{"licences and where the sources are", ""}
	case ipxebuild.FormatManifest:
		return use{"digests of all files", ""}
	}
	switch path.Base(name) {
	case "lpxelinux.0":
		return use{"BIOS, PXE, where the single file does not start", "0"}
	case "snponly.efi", "ipxe-amd64.efi":
		return use{"UEFI x86-64, PXE and HTTP Boot, with the script beside it", uefi}
	case "ipxe-arm64.efi":
		return use{"UEFI arm64, PXE and HTTP Boot, with the script beside it", arm}
	case "shimx64.efi":
		return use{"UEFI x86-64 with Secure Boot", uefi}
	}
	return use{"fetched by the others in the folder", ""}
}
