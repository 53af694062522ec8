package disk

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strings"
)

// Sectors of an ISO whose places are given (ECMA-119, El Torito 1.0) or ours.
const (
	sectorPrimary = 16 // primary volume descriptor
	sectorBoot    = 17 // El Torito's boot record
	sectorEnd     = 18 // end of the descriptors
	sectorCatalog = 19 // El Torito's catalog
	sectorPaths   = 20 // path table, little-endian; the big-endian one follows
)

const isoMagic = "CD001"

// Every time is the first of January 2020: ISO 9660 knows two forms of it.
const (
	isoTime     = "\x78\x01\x01\x00\x00\x00\x00" // years since 1900, month, day
	isoLongTime = "2020010100000000\x00"
	isoNoTime   = "0000000000000000\x00"
)

var isoNamePattern = regexp.MustCompile(`^[a-z0-9_]+(\.[a-z0-9_]+)?$`)

// isoName is the identifier of a file or folder, level 2, without version.
func isoName(name string) (string, error) {
	if len(name) > 30 || !isoNamePattern.MatchString(name) {
		return "", fmt.Errorf("name %q: want up to 30 of a to z, 0 to 9, _ and one dot inside", name)
	}
	return strings.ToUpper(name), nil
}

// iso is an ISO 9660 tree with its places in the image.
type iso struct {
	label     string
	boot      *node   // isolinux.bin; nil when the image doesn't boot in BIOS
	all       []*node // breadth first, the order of the path table
	pathTable int     // bytes
	end       int     // first sector behind the tree
}

// layISO finds a place for every folder and file.
func layISO(c Config) (*iso, error) {
	files := c.ISO
	if c.bios() {
		files = append([]File{{Path: isolinuxPath, Data: c.Isolinux}}, files...)
	}
	root, err := newTree(files, isoName)
	if err != nil {
		return nil, err
	}
	l := &iso{label: c.Label, all: root.breadthFirst()}
	if c.bios() {
		l.boot = root.child(isolinuxPath)
	}
	l.pathTable = len(l.paths(binary.LittleEndian))
	next := sectorPaths + 2*sectors(l.pathTable)
	for _, n := range l.all {
		if n.folder {
			n.size = roundUp(len(isoFolder(n)), sector)
			n.start = next
			next += sectors(n.size)
		}
	}
	for _, n := range l.all {
		if !n.folder {
			n.start = next
			next += sectors(n.size)
		}
	}
	l.end = next
	return l, nil
}

func sectors(bytes int) int { return (bytes + sector - 1) / sector }

// isolinux is the first sector of isolinux.bin, 0 when there is none.
func (l *iso) isolinux() int {
	if l.boot == nil {
		return 0
	}
	return l.boot.start
}

// write fills in all but the system area in front.
func (l *iso) write(image []byte, efi bootImage) {
	at := func(n int) []byte { return image[n*sector:] }
	writePrimary(at(sectorPrimary), l, len(image)/sector)
	writeBootRecord(at(sectorBoot))
	copy(at(sectorEnd), "\xff"+isoMagic+"\x01")
	writeCatalog(at(sectorCatalog), l.isolinux(), efi)
	copy(at(sectorPaths), l.paths(binary.LittleEndian))
	copy(at(sectorPaths+sectors(l.pathTable)), l.paths(binary.BigEndian))
	for _, n := range l.all {
		if n.folder {
			copy(at(n.start), isoFolder(n))
		} else {
			copy(at(n.start), n.data)
		}
	}
	if l.boot != nil {
		writeBootInfo(at(l.boot.start)[:l.boot.size], l.boot.start)
	}
}

// writePrimary writes the primary volume descriptor (ECMA-119, 8.4).
func writePrimary(b []byte, l *iso, total int) {
	root := l.all[0]
	copy(b, "\x01"+isoMagic+"\x01")
	text := func(from, to int, s string) { copy(b[from:to], s+strings.Repeat(" ", to-from-len(s))) }
	text(8, 40, "")
	text(40, 72, l.label)
	putBoth32(b[80:], total)
	putBoth16(b[120:], 1) // volumes in the set
	putBoth16(b[124:], 1) // number of this one
	putBoth16(b[128:], sector)
	putBoth32(b[132:], l.pathTable)
	binary.LittleEndian.PutUint32(b[140:], sectorPaths)
	binary.BigEndian.PutUint32(b[148:], uint32(sectorPaths+sectors(l.pathTable)))
	copy(b[156:], isoRecord("\x00", root))
	text(190, 574, "")
	text(574, 702, "NESTBOOT")
	text(702, 813, "")
	copy(b[813:], isoLongTime) // created
	copy(b[830:], isoLongTime) // modified
	copy(b[847:], isoNoTime)   // expires
	copy(b[864:], isoNoTime)   // becomes effective
	b[881] = 1
}

// isoFolder is a folder's list of records, none across the end of a sector.
func isoFolder(n *node) []byte {
	list := append(isoRecord("\x00", n), isoRecord("\x01", n.parent)...)
	for _, c := range n.children {
		r := isoRecord(isoIdentifier(c), c)
		if len(list)%sector+len(r) > sector {
			list = append(list, make([]byte, sector-len(list)%sector)...)
		}
		list = append(list, r...)
	}
	return list
}

// isoIdentifier is the name in a record: a file's has a dot and a version.
func isoIdentifier(n *node) string {
	switch {
	case n.folder:
		return n.name
	case strings.Contains(n.name, "."):
		return n.name + ";1"
	}
	return n.name + ".;1"
}

const isoFlagFolder = 2

// isoRecord is a directory record (ECMA-119, 9.1).
func isoRecord(identifier string, n *node) []byte {
	r := make([]byte, roundUp(33+len(identifier), 2))
	r[0] = byte(len(r))
	putBoth32(r[2:], n.start)
	putBoth32(r[10:], n.size)
	copy(r[18:], isoTime)
	if n.folder {
		r[25] = isoFlagFolder
	}
	putBoth16(r[28:], 1) // number of the volume
	r[32] = byte(len(identifier))
	copy(r[33:], identifier)
	return r
}

// paths is the path table (ECMA-119, 9.4) in one byte order.
func (l *iso) paths(order binary.AppendByteOrder) []byte {
	var table []byte
	numbers := map[*node]uint16{}
	for _, n := range l.all {
		if !n.folder {
			continue
		}
		numbers[n] = uint16(len(numbers) + 1)
		name := n.name
		if n.parent == n {
			name = "\x00"
		}
		table = append(table, byte(len(name)), 0)
		table = order.AppendUint32(table, uint32(n.start))
		table = order.AppendUint16(table, numbers[n.parent])
		table = append(table, name...)
		if len(name)%2 == 1 {
			table = append(table, 0)
		}
	}
	return table
}

// putBoth32 writes a number in both byte orders, one after the other.
func putBoth32(b []byte, n int) {
	binary.LittleEndian.PutUint32(b, uint32(n))
	binary.BigEndian.PutUint32(b[4:], uint32(n))
}

// putBoth16 is putBoth32 for a short number.
func putBoth16(b []byte, n int) {
	binary.LittleEndian.PutUint16(b, uint16(n))
	binary.BigEndian.PutUint16(b[2:], uint16(n))
}
