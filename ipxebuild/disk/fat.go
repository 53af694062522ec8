package disk

import (
	"encoding/binary"
	"fmt"
)

// The EFI system partition is FAT12 (Microsoft, FAT: General Overview of
// On-Disk Format 1.03; allowed by UEFI 2.10, 13.3 on removable media): with
// clusters of 2 to 8 KiB it holds all that El Torito can point at.
const (
	fatReserved    = 1    // blocks in front of the first table: the boot sector
	fatRootEntries = 512  // a multiple of a block's 16
	fatRootBlocks  = 32   // for them
	fatMaxClusters = 4084 // one more and it would be FAT16
	fatTrack       = 32   // blocks; mtools wants whole tracks
	fatHeads       = 64
	fatMedia       = 0xf8 // not a floppy
	fatLast        = 0xfff
	fatChainEnd    = 0xff8 // and above
)

// fat is a FAT12 volume with its places.
type fat struct {
	root     *node
	cluster  int // bytes
	clusters int // in use
	table    int // blocks of each of the two tables
	blocks   int // of the whole volume
}

// layFAT finds clusters for every folder and file, one after the other: no
// file is ever in pieces.
func layFAT(files []File) (*fat, error) {
	root, err := newTree(files, fatName)
	if err != nil {
		return nil, err
	}
	all := root.breadthFirst()
	for _, n := range all {
		if n.folder {
			n.size = len(fatFolder(n))
		}
	}
	if root.size > (fatRootEntries-1)*fatEntry { // one is for the label
		return nil, fmt.Errorf("more files and folders at the top than %d entries hold", fatRootEntries)
	}
	for cluster := 4 * block; cluster <= 16*block; cluster *= 2 {
		v := &fat{root: root, cluster: cluster}
		v.place(all[1:])
		if v.measure() && v.blocks <= maxElToritoSize {
			return v, nil
		}
	}
	return nil, fmt.Errorf("files too large: want less than %d MiB together", (maxElToritoSize+1)*block/mib)
}

// place gives nodes their clusters.
func (v *fat) place(nodes []*node) {
	for _, n := range nodes {
		if n.start = 0; n.size > 0 {
			n.start = 2 + v.clusters
		}
		v.clusters += v.clustersOf(n)
	}
}

func (v *fat) clustersOf(n *node) int { return (n.size + v.cluster - 1) / v.cluster }

// measure sets the size of the tables and of the volume, a whole number of
// tracks, and reports whether that is FAT12.
func (v *fat) measure() bool {
	perCluster := v.cluster / block
	possible := v.clusters + fatTrack/perCluster // rounding up makes more of them
	bytes := ((possible+2)*3 + 1) / 2
	v.table = (bytes + block - 1) / block
	v.blocks = roundUp(v.dataStart()+v.clusters*perCluster, fatTrack)
	return (v.blocks-v.dataStart())/perCluster <= fatMaxClusters
}

func (v *fat) rootStart() int { return fatReserved + 2*v.table }
func (v *fat) dataStart() int { return v.rootStart() + fatRootBlocks }

// write fills in the volume, which begins at block first of the disk.
func (v *fat) write(volume []byte, first int, c Config) {
	v.writeBootSector(volume, first, c)
	table := volume[fatReserved*block:][:v.table*block]
	put12(table, 0, 0xf00|fatMedia)
	put12(table, 1, fatLast)
	for _, n := range v.root.breadthFirst()[1:] {
		v.writeNode(volume, table, n)
	}
	copy(volume[(fatReserved+v.table)*block:], table)
	root := volume[v.rootStart()*block:]
	copy(root, fatRecord(fatLabel(c.Label), fatAttrLabel, &node{}))
	copy(root[fatEntry:], fatFolder(v.root))
}

// writeNode writes the chain and content of a file or folder.
func (v *fat) writeNode(volume, table []byte, n *node) {
	last := n.start + v.clustersOf(n) - 1
	for i := n.start; i < last; i++ {
		put12(table, i, i+1)
	}
	if n.size == 0 {
		return
	}
	put12(table, last, fatLast)
	data := n.data
	if n.folder {
		data = fatFolder(n)
	}
	copy(volume[v.dataStart()*block+(n.start-2)*v.cluster:], data)
}

// writeBootSector writes the parameters and a program that goes on to BIOS's
// next boot device: nothing boots from here in BIOS.
func (v *fat) writeBootSector(b []byte, first int, c Config) {
	put16, put32 := binary.LittleEndian.PutUint16, binary.LittleEndian.PutUint32
	copy(b, "\xeb\x3c\x90NESTBOOT")
	put16(b[11:], block)
	b[13] = byte(v.cluster / block)
	put16(b[14:], fatReserved)
	b[16] = 2 // tables
	put16(b[17:], fatRootEntries)
	put16(b[19:], uint16(v.blocks))
	b[21] = fatMedia
	put16(b[22:], uint16(v.table))
	put16(b[24:], fatTrack)
	put16(b[26:], fatHeads)
	put32(b[28:], uint32(first)) // blocks in front of the volume
	b[36] = 0x80                 // BIOS's number of a first hard disk
	b[38] = 0x29                 // serial number, label and type follow
	copy(b[39:43], serial(c.ID, "fat"))
	copy(b[43:54], fatLabel(c.Label))
	copy(b[54:], "FAT12   ")
	copy(b[62:], "\xcd\x18\xeb\xfe") // int 0x18, then stay
	b[510], b[511] = 0x55, 0xaa
}

// put12 sets a 12-bit entry of a table that is zero there.
func put12(table []byte, i, v int) {
	o := i * 3 / 2
	if i%2 == 1 {
		v <<= 4
	}
	table[o] |= byte(v)
	table[o+1] |= byte(v >> 8)
}

// get12 is the inverse of put12.
func get12(table []byte, i int) int {
	v := int(binary.LittleEndian.Uint16(table[i*3/2:]))
	if i%2 == 1 {
		return v >> 4
	}
	return v & 0xfff
}
