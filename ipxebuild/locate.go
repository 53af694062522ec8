package ipxebuild

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"regexp"
	"strings"
)

var (
	productName    = []byte("iPXE\x00")
	productVersion = regexp.MustCompile(`^[0-9]+(\.[0-9]+[0-9A-Za-z.+~() -]{0,60}|[0-9A-Za-z.+~() -]{0,60},[0-9a-f]{3,6})\x00`)
	// sbat is in iPXE's line of the table that Secure Boot revokes by.
	sbat = regexp.MustCompile(`^,iPXE,[^,\n]{1,32},([0-9][0-9A-Za-z.+~() -]{0,60}),https://ipxe\.org`)
)

// plainVersion is the version in iPXE's machine code, in a marked binary what is
// left of it; empty: not found, or several.
func plainVersion(code []byte) string {
	at := versionAt(code)
	if at == nil {
		return ""
	}
	version, _, _ := strings.Cut(string(code[at[0]:at[1]]), markSign)
	return version
}

// versionAt is where plainVersion found it: behind iPXE's name and some padding
// (src/core/version.c; NUL bytes in 1.21.1, instructions in 2.0.0).
func versionAt(code []byte) []int {
	var found []int
	for at := 0; ; {
		i := bytes.Index(code[at:], productName)
		if i < 0 {
			return found
		}
		at += i + len(productName)
		start := at
		for start < min(at+15, len(code)-1) && bytes.IndexByte([]byte{0, 0x66, 0x90}, code[start]) >= 0 {
			start++
		}
		m := productVersion.Find(code[start:min(start+80, len(code))])
		switch {
		case m == nil:
		case found != nil:
			return nil
		default:
			found = []int{start, start + len(m) - 1}
		}
	}
}

// sbatVersion is the version in iPXE's own line of that table; empty: there is
// none.
func sbatVersion(efi []byte) string {
	for {
		i := bytes.Index(efi, []byte(",iPXE,"))
		if i < 0 {
			return ""
		}
		if m := sbat.FindSubmatch(efi[i:min(i+160, len(efi))]); m != nil {
			return string(m[1])
		}
		efi = efi[i+1:]
	}
}

// sha1Info begins a signature's DigestInfo for SHA-1 (RFC 8017, 9.2, note 1).
// iPXE's list of these follows its fingerprints of trusted roots.
var sha1Info = []byte("\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14")

// maxGap bounds what is between the fingerprint and sha1Info; 0 to 8 bytes
// were seen.
const maxGap = 16

// locateRoot finds the trusted root's fingerprint in a binary that no longer
// has the stock one: it lies before sha1Info, and there is exactly one
// structure that says "one fingerprint, at this address". pointer gives the
// bytes of the address of an offset.
func locateRoot(code []byte, pointer func(offset int) []byte) ([sha256.Size]byte, bool) {
	end := bytes.Index(code, sha1Info)
	if end < 0 || bytes.Count(code, sha1Info) != 1 {
		return [sha256.Size]byte{}, false
	}
	var found [][sha256.Size]byte
	for gap := range maxGap {
		at := end - gap - sha256.Size
		if at < 0 {
			break
		}
		p := pointer(at)
		if len(p) == 0 {
			continue
		}
		one := make([]byte, len(p), 2*len(p))
		one[0] = 1
		if bytes.Contains(code, append(one, p...)) {
			found = append(found, [sha256.Size]byte(code[at:]))
		}
	}
	if len(found) != 1 {
		return [sha256.Size]byte{}, false
	}
	return found[0], true
}

// biosPointer is an address in an unpacked BIOS binary, which is linked to 0.
func biosPointer(offset int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(offset)) }
