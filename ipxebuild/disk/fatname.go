package disk

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf16"
)

// Folder entries of FAT.
const (
	fatEntry      = 32 // bytes
	fatShort      = 11 // bytes of a short name: 8 and 3, filled up with spaces
	fatAttrLabel  = 0x08
	fatAttrFolder = 0x10
	fatAttrFile   = 0x20
	fatAttrLong   = 0x0f // part of a long name
	fatLongPart   = 13   // UTF-16 units of a long name per entry
	fatLongParts  = 5    // entries that hold our longest name
	fatLongLast   = 0x40 // the last part, which comes first
	fatDate       = (2020-1980)<<9 | 1<<5 | 1
)

var (
	fatNamePattern  = regexp.MustCompile(`^[A-Za-z0-9_-]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_-])?$`)
	fatShortPattern = regexp.MustCompile(`^[A-Z0-9_-]{1,8}(\.[A-Z0-9_-]{1,3})?$`)
)

// fatName checks a name. Upper-case 8.3 is stored as such, and is what the
// boot files of UEFI are; any other gets a long name too.
func fatName(name string) (string, error) {
	if !fatNamePattern.MatchString(name) {
		return "", fmt.Errorf("name %q: want up to 64 of A to Z, a to z, 0 to 9, _ - . and no dot at the ends", name)
	}
	return name, nil
}

// fatLabel is a volume's label as FAT keeps it.
func fatLabel(label string) string { return pad(label, fatShort) }

// pad cuts or fills up s to n bytes.
func pad(s string, n int) string { return (s + strings.Repeat(" ", n))[:n] }

// shortForm is an upper-case 8.3 name as it is stored.
func shortForm(name string) string {
	base, ext, _ := strings.Cut(name, ".")
	return pad(base, 8) + pad(ext, 3)
}

// fatFolder is the list of a folder's entries. The root has none for itself
// and its parent.
func fatFolder(n *node) []byte {
	var list []byte
	if n.parent != n {
		list = append(list, fatRecord(pad(".", fatShort), fatAttrFolder, n)...)
		list = append(list, fatRecord(pad("..", fatShort), fatAttrFolder, n.parent)...)
	}
	taken := map[string]bool{}
	for _, c := range n.children {
		if fatShortPattern.MatchString(c.name) {
			taken[shortForm(c.name)] = true
		}
	}
	for _, c := range n.children {
		attr := byte(fatAttrFile)
		if c.folder {
			attr = fatAttrFolder
		}
		short := shortForm(c.name)
		if !fatShortPattern.MatchString(c.name) {
			short = alias(c.name, taken)
			list = append(list, longName(c.name, short)...)
		}
		list = append(list, fatRecord(short, attr, c)...)
	}
	return list
}

// alias makes the short name that goes with a long one, and takes it.
func alias(name string, taken map[string]bool) string {
	name = strings.ToUpper(name)
	ext := ""
	if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
		name, ext = name[:dot], name[dot+1:]
	}
	name = strings.ReplaceAll(name, ".", "")
	for i := 1; ; i++ {
		tail := fmt.Sprintf("~%d", i)
		short := pad(name[:min(len(name), 8-len(tail))]+tail, 8) + pad(ext, 3)
		if !taken[short] {
			taken[short] = true
			return short
		}
	}
}

// fatRecord is the entry of a file or folder. A folder has no size in it, and
// the root's first cluster counts as 0.
func fatRecord(short string, attr byte, n *node) []byte {
	r := make([]byte, fatEntry)
	copy(r, short)
	r[11] = attr
	put16 := binary.LittleEndian.PutUint16
	put16(r[16:], fatDate) // created
	put16(r[18:], fatDate) // read
	put16(r[24:], fatDate) // written
	put16(r[26:], uint16(n.start))
	if !n.folder {
		binary.LittleEndian.PutUint32(r[28:], uint32(n.size))
	}
	return r
}

// longName is the entries in front of a short one that hold the long name, its
// last part first. Unused units behind the final zero are 0xffff.
func longName(name, short string) []byte {
	units := utf16.Encode([]rune(name))
	parts := (len(units) + fatLongPart - 1) / fatLongPart
	if len(units)%fatLongPart != 0 {
		units = append(units, 0)
	}
	for len(units)%fatLongPart != 0 {
		units = append(units, 0xffff)
	}
	var list []byte
	for i := parts; i >= 1; i-- {
		r := make([]byte, fatEntry)
		r[0] = byte(i)
		if i == parts {
			r[0] |= fatLongLast
		}
		r[11] = fatAttrLong
		r[13] = shortSum(short)
		for k, u := range units[(i-1)*fatLongPart : i*fatLongPart] {
			binary.LittleEndian.PutUint16(r[longOffset(k):], u)
		}
		list = append(list, r...)
	}
	return list
}

// longOffset is where unit k of a part lies in its entry.
func longOffset(k int) int {
	switch {
	case k < 5:
		return 1 + 2*k
	case k < 11:
		return 14 + 2*(k-5)
	}
	return 28 + 2*(k-11)
}

// shortSum ties long names to their short one.
func shortSum(short string) byte {
	var sum byte
	for i := range len(short) {
		sum = sum>>1 | sum<<7
		sum += short[i]
	}
	return sum
}
