package signature

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"strings"
)

// Sums are the digests that a list has for a file, hexadecimal; empty where it
// has none of that kind.
type Sums struct {
	SHA256, SHA512 string
}

var (
	hexDigest = regexp.MustCompile(`^([0-9a-f]{64}|[0-9a-f]{128})$`)
	bsdLine   = regexp.MustCompile(`^SHA(256|512) \((.{1,1000})\) = ([0-9a-f]{64,128})$`)
)

// ParseList reads digests by path, in the forms of sha256sum and sha512sum, of
// BSD's tools, and of the Release files of Debian's archive, which has a size
// between digest and path. Lines of any other form do not count: comments,
// headers, weaker digests. Two different digests for one path are an error.
func ParseList(data []byte) (map[string]Sums, error) {
	if len(data) > MaxList {
		return nil, fmt.Errorf("the list of digests is longer than %d bytes", MaxList)
	}
	all := map[string]Sums{}
	for line := range bytes.Lines(data) {
		digest, name := parseLine(strings.TrimRight(string(line), "\r\n"))
		if name == "" {
			continue
		}
		s := all[name]
		kept := &s.SHA256
		if len(digest) == 128 {
			kept = &s.SHA512
		}
		if *kept != "" && *kept != digest {
			return nil, fmt.Errorf("the list has two digests for %.200q", name)
		}
		*kept = digest
		all[name] = s
	}
	return all, nil
}

// parseLine returns an empty name for a line that has no digest.
func parseLine(line string) (digest, name string) {
	if m := bsdLine.FindStringSubmatch(line); m != nil {
		digest, name = m[3], m[2]
		if len(digest) == 64 != (m[1] == "256") {
			return "", ""
		}
	} else if fields := strings.Fields(line); len(fields) == 2 || len(fields) == 3 {
		digest, name = strings.ToLower(fields[0]), strings.TrimPrefix(fields[len(fields)-1], "*")
	}
	if !hexDigest.MatchString(digest) || name == "" {
		return "", ""
	}
	return digest, path.Clean(name)
}
