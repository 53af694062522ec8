package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// ErrNotDisk is the error of Read for what is no ISO 9660 image at all.
var ErrNotDisk = errors.New("not an ISO 9660 image")

// Contents is what Read finds in an image.
type Contents struct {
	Label string
	BIOS  bool   // boots in BIOS too
	ISO   []File // isolinux.bin excluded
	ESP   []File
}

// Read reads an image that Write made, or a disk that it was copied to, up to
// MaxSize. The files' data is part of the given data, nothing is copied.
// Checked are all places and names, and the checksums of GPT and isolinux.bin.
// The error says what is wrong and is ErrNotDisk for some other kind of file.
func Read(data []byte) (Contents, error) {
	c, err := read(data)
	if err != nil {
		return Contents{}, fmt.Errorf("read disk image: %w", err)
	}
	return c, nil
}

func read(data []byte) (Contents, error) {
	magic, err := cut(data, sectorPrimary*sector, sector)
	if err != nil || string(magic[:7]) != "\x01"+isoMagic+"\x01" {
		return Contents{}, ErrNotDisk
	}
	if len(data) > MaxSize {
		return Contents{}, fmt.Errorf("%d bytes, more than %d", len(data), MaxSize)
	}
	image, esp, err := readTables(data)
	if err != nil {
		return Contents{}, err
	}
	isolinux, efi, err := readCatalog(image)
	if err != nil {
		return Contents{}, err
	}
	if efi.sector*sector/block != esp.first || efi.blocks != esp.last-esp.first+1 {
		return Contents{}, errors.New("boot catalog and GPT disagree on where the EFI system partition is: damaged")
	}
	c := Contents{Label: strings.TrimRight(string(magic[40:72]), " "), BIOS: isolinux != 0}
	if !labelPattern.MatchString(c.Label) {
		return Contents{}, fmt.Errorf("label %q: not an image of ours", c.Label)
	}
	if c.ISO, err = readISO(image, isolinux); err != nil {
		return Contents{}, fmt.Errorf("ISO: %w", err)
	}
	if c.ESP, err = readFAT(image[esp.first*block : (esp.last+1)*block]); err != nil {
		return Contents{}, fmt.Errorf("EFI system partition: %w", err)
	}
	return c, nil
}

// isoWalker reads an ISO 9660 tree.
type isoWalker struct {
	walker
	image    []byte
	isolinux int // sector of isolinux.bin, left out of the files; 0 when there is none
	found    bool
}

func readISO(image []byte, isolinux int) ([]File, error) {
	w := isoWalker{walker: walker{seen: map[string]bool{}}, image: image, isolinux: isolinux}
	if err := w.folder(image[sectorPrimary*sector+156:][:34], ""); err != nil {
		return nil, err
	}
	if isolinux != 0 && !w.found {
		return nil, errors.New("the boot catalog names an isolinux.bin that is not in the tree")
	}
	return w.files, nil
}

// extent is what a record points at.
func (w *isoWalker) extent(record []byte) ([]byte, error) {
	start, size := binary.LittleEndian.Uint32(record[2:]), binary.LittleEndian.Uint32(record[10:])
	return cut(w.image, uint64(start)*sector, uint64(size))
}

// folder reads the folder of a record; prefix is its path with a slash, or "".
func (w *isoWalker) folder(record []byte, prefix string) error {
	list, err := w.extent(record)
	if err != nil {
		return fmt.Errorf("folder %q: %w", prefix, err)
	}
	if len(list) > maxFolder {
		return fmt.Errorf("folder %q has a list of %d bytes, more than %d", prefix, len(list), maxFolder)
	}
	for len(list) > 0 {
		n := int(list[0])
		if n == 0 { // the rest of a sector
			list = list[min(len(list), (len(list)-1)%sector+1):]
			continue
		}
		if n < 34 || n > len(list) || 33+int(list[32]) > n {
			return fmt.Errorf("folder %q has a damaged entry", prefix)
		}
		if err := w.record(list[:n], prefix); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

// record reads one entry of a folder.
func (w *isoWalker) record(r []byte, prefix string) error {
	identifier := string(r[33 : 33+int(r[32])])
	if identifier == "\x00" || identifier == "\x01" { // the folder itself and its parent
		return nil
	}
	name := strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(identifier, ";1"), "."))
	path := prefix + name
	if _, err := isoName(name); err != nil {
		return fmt.Errorf("folder %q: %w", prefix, err)
	}
	if err := w.enter(path); err != nil {
		return err
	}
	switch r[25] {
	case isoFlagFolder:
		return w.folder(r, path+"/")
	case 0:
		data, err := w.extent(r)
		if err != nil {
			return fmt.Errorf("file %q: %w", path, err)
		}
		return w.file(r, File{Path: path, Data: data})
	}
	return fmt.Errorf("file %q has flags %#x: not an image of ours", path, r[25])
}

func (w *isoWalker) file(r []byte, f File) error {
	if w.isolinux == 0 || f.Path != isolinuxPath {
		w.files = append(w.files, f)
		return nil
	}
	w.found = true
	if int(binary.LittleEndian.Uint32(r[2:])) != w.isolinux {
		return errors.New("the boot catalog does not name the tree's isolinux.bin")
	}
	if checkIsolinux(f.Data) != nil || binary.LittleEndian.Uint32(f.Data[20:]) != bootInfoSum(f.Data) {
		return errors.New("isolinux.bin is damaged: its checksum is wrong")
	}
	return nil
}
