package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// El Torito: how a CD tells firmware what to boot ("El Torito" Bootable CD-ROM
// Format Specification 1.0; the EFI entry: UEFI 2.10, 13.3.2.1).
const (
	elToritoName    = "EL TORITO SPECIFICATION"
	catalogEntry    = 32 // bytes
	platformBIOS    = 0x00
	platformEFI     = 0xef
	bootable        = 0x88
	lastSection     = 0x91
	isolinuxBlocks  = 4 // what BIOS loads of isolinux.bin, which loads the rest itself
	maxElToritoSize = 0xffff
)

// isolinuxMarker stands in every isolinux.bin behind the boot information and
// is what isohdpfx.bin looks for before it starts it (seen in 6.04).
const isolinuxMarker = "\xfb\xc0\x78\x70"

// bootInfoEnd is where the boot information table ends, and the marker begins.
const bootInfoEnd = 64

// bootImage is where the EFI system partition lies on the CD.
type bootImage struct {
	sector int
	blocks int
}

func checkIsolinux(data []byte) error {
	if len(data) < isolinuxBlocks*block || string(data[bootInfoEnd:bootInfoEnd+4]) != isolinuxMarker {
		return errors.New("isolinux.bin is missing or none that boots from sticks: want the one of Debian's package isolinux")
	}
	return nil
}

func writeBootRecord(b []byte) {
	copy(b, "\x00"+isoMagic+"\x01"+elToritoName)
	binary.LittleEndian.PutUint32(b[71:], sectorCatalog)
}

// writeCatalog lists what to boot: BIOS first, where there is isolinux (its
// sector is not 0), since old BIOSes look at the first entry only.
func writeCatalog(b []byte, isolinux int, efi bootImage) {
	if isolinux == 0 {
		writeValidation(b, platformEFI)
		writeBootEntry(b[catalogEntry:], efi)
		return
	}
	writeValidation(b, platformBIOS)
	writeBootEntry(b[catalogEntry:], bootImage{sector: isolinux, blocks: isolinuxBlocks})
	section := b[2*catalogEntry:]
	section[0], section[1] = lastSection, platformEFI
	section[2] = 1 // entries
	writeBootEntry(b[3*catalogEntry:], efi)
}

// writeValidation writes the catalog's head; its 16-bit words add up to 0.
func writeValidation(b []byte, platform byte) {
	b[0], b[1] = 1, platform
	copy(b[4:28], "NESTBOOT")
	b[30], b[31] = 0x55, 0xaa
	var sum uint16
	for i := 0; i < catalogEntry; i += 2 {
		sum += binary.LittleEndian.Uint16(b[i:])
	}
	binary.LittleEndian.PutUint16(b[28:], -sum)
}

// writeBootEntry writes an entry without emulation at the usual load segment.
func writeBootEntry(b []byte, image bootImage) {
	b[0] = bootable
	binary.LittleEndian.PutUint16(b[6:], uint16(image.blocks))
	binary.LittleEndian.PutUint32(b[8:], uint32(image.sector))
}

// writeBootInfo tells isolinux.bin where and how long it is and what it adds
// up to (mkisofs's boot information table).
func writeBootInfo(isolinux []byte, start int) {
	clear(isolinux[8:bootInfoEnd])
	put := binary.LittleEndian.PutUint32
	put(isolinux[8:], sectorPrimary)
	put(isolinux[12:], uint32(start))
	put(isolinux[16:], uint32(len(isolinux)))
	put(isolinux[20:], bootInfoSum(isolinux))
}

// bootInfoSum adds the 32-bit words behind the table, the last one filled up
// with zeros.
func bootInfoSum(isolinux []byte) uint32 {
	var sum uint32
	rest := isolinux[bootInfoEnd:]
	for ; len(rest) >= 4; rest = rest[4:] {
		sum += binary.LittleEndian.Uint32(rest)
	}
	var last [4]byte
	copy(last[:], rest)
	return sum + binary.LittleEndian.Uint32(last[:])
}

// readCatalog returns the sector of isolinux.bin, 0 when there is none, and
// the EFI image of a catalog as writeCatalog writes it.
func readCatalog(image []byte) (isolinux int, efi bootImage, err error) {
	record, err := cut(image, sectorBoot*sector, sector)
	if err != nil {
		return 0, efi, err
	}
	if !bytes.HasPrefix(record, []byte("\x00"+isoMagic+"\x01"+elToritoName)) {
		return 0, efi, errors.New("no El Torito boot record: not an image of ours")
	}
	b, err := cut(image, uint64(binary.LittleEndian.Uint32(record[71:]))*sector, sector)
	if err != nil {
		return 0, efi, fmt.Errorf("boot catalog: %w", err)
	}
	var want [catalogEntry]byte
	writeValidation(want[:], b[1])
	if !bytes.Equal(b[:catalogEntry], want[:]) {
		return 0, efi, errors.New("the boot catalog's head is not ours, or damaged")
	}
	first, second := b[catalogEntry:2*catalogEntry], b[3*catalogEntry:4*catalogEntry]
	switch b[1] {
	case platformEFI:
		efi, err = readBootEntry(first)
		return 0, efi, err
	case platformBIOS:
		bios, err := readBootEntry(first)
		if err != nil {
			return 0, efi, err
		}
		if bios.sector == 0 || b[2*catalogEntry] != lastSection || b[2*catalogEntry+1] != platformEFI {
			return 0, efi, errors.New("the boot catalog has no BIOS entry followed by an EFI one: not an image of ours")
		}
		efi, err = readBootEntry(second)
		return bios.sector, efi, err
	}
	return 0, efi, fmt.Errorf("the boot catalog begins with platform %#x, neither BIOS nor EFI", b[1])
}

func readBootEntry(b []byte) (bootImage, error) {
	if b[0] != bootable || b[1] != 0 {
		return bootImage{}, errors.New("an entry of the boot catalog is not bootable or emulates a floppy: not an image of ours")
	}
	return bootImage{
		sector: int(binary.LittleEndian.Uint32(b[8:])),
		blocks: int(binary.LittleEndian.Uint16(b[6:])),
	}, nil
}
