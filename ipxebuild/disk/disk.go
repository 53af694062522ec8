// Package disk writes one image that is a CD and a disk at once, bootable in
// BIOS and UEFI either way, and reads its own images back. Everything happens
// in memory; equal input gives equal bytes. It knows nothing of what it boots:
// the files, isolinux and its settings are the caller's.
//
// An image of n sectors of 512 bytes, n a multiple of 2048 (1 MiB):
//
//	0          MBR: boot code (isohdpfx.bin) that loads isolinux.bin, and the
//	           protective partition entry; a BIOS that starts a stick reads it
//	1-33       GPT with one partition, the EFI system partition
//	64         ISO 9660: descriptors, El Torito catalog, path tables, folders,
//	           isolinux.bin, the other files
//	m * 2048   EFI system partition: FAT12, which the UEFI specification
//	           allows on removable media; El Torito's EFI entry points at it
//	n-33, n-1  backup of the GPT's entries and header
//
// # Why GPT, and why the odd second entry in the MBR
//
// The MBR holds the protective entry (type 0xEE), and, where there is boot
// code, an entry of type 0 with one block that is marked active. isohdpfx.bin
// does not need it, it knows where isolinux.bin lies; it is for BIOSes that
// skip a disk without an active entry, and the protective entry itself may not
// be active (UEFI 2.10, 5.2.3). Firmware, fdisk, sgdisk and xorriso ignore an
// entry of type 0. The other common layout, an MBR with an active entry over
// the whole image and one of type 0xEF inside it, is two partitions that
// overlap: with type 0x17 outside OVMF does not boot it, with type 0 it does,
// but then there is no valid GPT. The GPT's first usable block is the
// partition's, so that no tool offers the ISO's blocks as free space.
//
// Seen booting with iPXE 1.21.1 and 2.0.0: CD, USB stick, SATA and virtio disk
// under SeaBIOS 1.16.2 and OVMF 2022.11, USB stick under AAVMF 2022.11 (arm64);
// as a stick also with the boot catalog or the GPT wiped out, and copied to a
// larger disk. A disk with sectors of 4096 bytes has its GPT elsewhere: it
// boots only where the disk emulates 512.
//
// # Why not a library
//
// github.com/diskfs/go-diskfs 1.9.4 keeps its ISO tree in a folder on disk,
// takes the times of ISO and FAT entries from that folder or from the clock,
// writes plain ISO names cut to 8.3 and needs 40 ms (this package: 1). The
// tests read our images with it.
//
// Begin at Write and Read.
package disk

import (
	"errors"
	"fmt"
	"regexp"
)

const (
	block  = 512     // bytes, of a disk
	sector = 2048    // bytes, of a CD
	mib    = 1 << 20 // disks are aligned to it; 64 heads of 32 blocks in BIOS terms
)

// MaxSize is the size in bytes of the largest image that is written or read.
const MaxSize = 64 * mib

// isolinuxPath is where isolinux.bin lies in the ISO's tree.
const isolinuxPath = "isolinux.bin"

// File is one file of a tree. Folders are those that files lie in.
type File struct {
	// Path is relative, with slashes. In the ISO's tree: lower-case letters,
	// digits, underscores and at most one dot, up to 30 per part; isolinux and
	// Linux find such names as they are written here. In the EFI system
	// partition: letters, digits and "_-.", up to 64 per part; names that
	// differ only in case are the same one.
	Path string
	Data []byte
}

// Config is what an image is made of.
type Config struct {
	// Label names the volume: 1 to 32 of "A" to "Z", digits and underscore.
	// FAT keeps the first 11.
	Label string
	// ID seeds every serial number and GUID: same ID, same numbers.
	ID [16]byte
	// Isolinux and MBR are syslinux's isolinux.bin and isohdpfx.bin. Without
	// both the image does not boot in BIOS.
	Isolinux, MBR []byte
	// ISO is the tree as isolinux sees it, isolinux.bin itself excluded:
	// isolinux.cfg, ldlinux.c32 and what they name.
	ISO []File
	// ESP is the tree of the EFI system partition, EFI/BOOT/BOOTX64.EFI and
	// so on. At least one file, less than 32 MiB together.
	ESP []File
}

var labelPattern = regexp.MustCompile(`^[A-Z0-9_]{1,32}$`)

// check reports all faults of a Config that show without laying it out.
func (c Config) check() error {
	var faults []error
	if !labelPattern.MatchString(c.Label) {
		faults = append(faults, fmt.Errorf("label %q: want 1 to 32 of A to Z, 0 to 9 and _", c.Label))
	}
	if len(c.ESP) == 0 {
		faults = append(faults, errors.New("no file for the EFI system partition: want EFI/BOOT/BOOTX64.EFI or BOOTAA64.EFI"))
	}
	if c.bios() {
		faults = append(faults, checkIsolinux(c.Isolinux), checkBootCode(c.MBR))
	}
	size := len(c.Isolinux)
	for _, f := range append(c.ISO[:len(c.ISO):len(c.ISO)], c.ESP...) {
		size += len(f.Data)
	}
	if size > MaxSize {
		faults = append(faults, fmt.Errorf("files of %d bytes together, more than an image of %d holds", size, MaxSize))
	}
	return errors.Join(faults...)
}

func (c Config) bios() bool { return len(c.Isolinux) > 0 || len(c.MBR) > 0 }

// Write makes an image. The error says what is wrong with c.
func Write(c Config) ([]byte, error) {
	image, err := write(c)
	if err != nil {
		return nil, fmt.Errorf("write disk image: %w", err)
	}
	return image, nil
}

func write(c Config) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	iso, err := layISO(c)
	if err != nil {
		return nil, fmt.Errorf("ISO: %w", err)
	}
	esp, err := layFAT(c.ESP)
	if err != nil {
		return nil, fmt.Errorf("EFI system partition: %w", err)
	}
	start := roundUp(iso.end*sector, mib)
	end := start + esp.blocks*block
	size := roundUp(end+gptBackup*block, mib)
	if size > MaxSize {
		return nil, fmt.Errorf("image of %d bytes, more than %d", size, MaxSize)
	}
	image := make([]byte, size)
	iso.write(image, bootImage{sector: start / sector, blocks: esp.blocks})
	esp.write(image[start:end], start/block, c)
	writeTables(image, partition{first: start / block, last: end/block - 1}, c, iso.isolinux())
	return image, nil
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }
