package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
)

// fatWalker reads a FAT12 tree.
type fatWalker struct {
	walker
	table   []byte
	data    []byte // clusters from number 2 on
	cluster int    // bytes
}

// readFAT reads a volume as layFAT lays it out.
func readFAT(volume []byte) ([]File, error) {
	get16 := binary.LittleEndian.Uint16
	if len(volume) < block || volume[510] != 0x55 || volume[511] != 0xaa {
		return nil, errors.New("no FAT boot sector: damaged")
	}
	v := fat{
		cluster: int(volume[13]) * block,
		table:   int(get16(volume[22:])),
		blocks:  int(get16(volume[19:])),
	}
	switch {
	case get16(volume[11:]) != block, get16(volume[14:]) != fatReserved, volume[16] != 2, get16(volume[17:]) != fatRootEntries:
		return nil, errors.New("not a FAT volume of ours")
	case v.cluster == 0, v.blocks*block != len(volume), v.dataStart() > v.blocks:
		return nil, errors.New("FAT volume with impossible sizes: damaged")
	}
	data := volume[v.dataStart()*block:]
	w := fatWalker{
		walker: walker{seen: map[string]bool{}},
		table:  volume[fatReserved*block : (fatReserved+v.table)*block],
		data:   data, cluster: v.cluster,
	}
	if clusters := len(data) / v.cluster; clusters > fatMaxClusters || ((clusters+2)*3+1)/2 > len(w.table) {
		return nil, errors.New("FAT volume whose tables don't fit its size: damaged")
	}
	if err := w.folder(volume[v.rootStart()*block:v.dataStart()*block], ""); err != nil {
		return nil, err
	}
	return w.files, nil
}

// chain is the clusters from start to the end of their chain, which must lie
// one after the other.
func (w *fatWalker) chain(start int) ([]byte, error) {
	clusters := len(w.data) / w.cluster
	for i := start; i >= 2 && i < clusters+2; i++ {
		switch next := get12(w.table, i); {
		case next >= fatChainEnd:
			return cut(w.data, uint64((start-2)*w.cluster), uint64((i+1-start)*w.cluster))
		case next != i+1:
			return nil, fmt.Errorf("cluster %d is followed by %d: in pieces, so not an image of ours, or damaged", i, next)
		}
	}
	return nil, fmt.Errorf("chain of clusters from %d leaves the volume: damaged", start)
}

// folder reads a list of entries; prefix is its path with a slash, or "".
func (w *fatWalker) folder(list []byte, prefix string) error {
	if len(list) > maxFolder {
		return fmt.Errorf("folder %q has a list of %d bytes, more than %d", prefix, len(list), maxFolder)
	}
	var long []byte // the entries of a long name so far
	for ; len(list) >= fatEntry && list[0] != 0; list = list[fatEntry:] {
		r := list[:fatEntry]
		switch {
		case r[0] == 0xe5: // deleted
			long = nil
		case r[11] == fatAttrLong:
			if len(long) == fatLongParts*fatEntry {
				return fmt.Errorf("folder %q has a name that is too long", prefix)
			}
			long = append(r[:fatEntry:fatEntry], long...) // the last part comes first
		default:
			if err := w.record(r, long, prefix); err != nil {
				return err
			}
			long = nil
		}
	}
	return nil
}

// record reads the entry of a file or folder.
func (w *fatWalker) record(r, long []byte, prefix string) error {
	if r[11]&fatAttrLabel != 0 || r[0] == '.' {
		return nil
	}
	name, err := entryName(r, long)
	if err != nil {
		return fmt.Errorf("folder %q: %w", prefix, err)
	}
	path := prefix + name
	if err := w.enter(path); err != nil {
		return err
	}
	size := binary.LittleEndian.Uint32(r[28:])
	var data []byte
	if folder := r[11]&fatAttrFolder != 0; folder || size > 0 {
		if data, err = w.chain(int(binary.LittleEndian.Uint16(r[26:]))); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if folder {
			return w.folder(data, path+"/")
		}
	}
	if data, err = cut(data, 0, uint64(size)); err != nil {
		return fmt.Errorf("file %q: %w", path, err)
	}
	w.files = append(w.files, File{Path: path, Data: data})
	return nil
}

// entryName is the name of an entry: the long one where there is one.
func entryName(r, long []byte) (string, error) {
	short := string(r[:fatShort])
	name := strings.TrimRight(short[:8], " ")
	if ext := strings.TrimRight(short[8:], " "); ext != "" {
		name += "." + ext
	}
	if len(long) > 0 {
		var err error
		if name, err = joinLong(long, short); err != nil {
			return "", err
		}
	}
	return fatName(name)
}

// joinLong puts a long name together from its parts, first part first.
func joinLong(parts []byte, short string) (string, error) {
	var units []uint16
	for i := 0; i < len(parts)/fatEntry; i++ {
		r := parts[i*fatEntry : (i+1)*fatEntry]
		last := byte(0)
		if (i+1)*fatEntry == len(parts) {
			last = fatLongLast
		}
		if r[0] != byte(i+1)|last || r[13] != shortSum(short) {
			return "", fmt.Errorf("long name in front of %q does not belong to it: damaged", short)
		}
		for k := range fatLongPart {
			u := binary.LittleEndian.Uint16(r[longOffset(k):])
			if u == 0 {
				return string(utf16.Decode(units)), nil
			}
			units = append(units, u)
		}
	}
	return string(utf16.Decode(units)), nil
}
