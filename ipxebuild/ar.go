package ipxebuild

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// readAr reads a Unix archive as dpkg writes it (deb(5)): a magic line, then
// members of a 60-byte header of text and data padded to two bytes. The
// members share memory with data.
func readAr(data []byte) (map[string][]byte, error) {
	const (
		magic  = "!<arch>\n"
		header = 60
		most   = 16 // a .deb has three
	)
	rest, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok {
		return nil, errors.New("not an ar archive")
	}
	members := map[string][]byte{}
	for len(rest) > 0 {
		if len(rest) < header || string(rest[58:60]) != "`\n" || len(members) == most {
			return nil, errors.New("damaged ar archive")
		}
		name := strings.TrimSuffix(strings.TrimRight(string(rest[:16]), " "), "/")
		size, err := strconv.ParseUint(strings.TrimRight(string(rest[48:58]), " "), 10, 40)
		if err != nil || size > uint64(len(rest)-header) {
			return nil, fmt.Errorf("member %.16q of %.10q bytes does not fit: the file is cut short", name, rest[48:58])
		}
		if _, ok := members[name]; ok {
			return nil, fmt.Errorf("member %.16q is there twice", name)
		}
		members[name] = rest[header : header+size]
		rest = rest[min(header+int(size)+int(size)%2, len(rest)):]
	}
	return members, nil
}
