package tftp

import (
	"bytes"
	"encoding/binary"
	"strings"
)

const (
	// maxRequest is RFC 2347's limit for a request with its options.
	maxRequest = 512
	// maxOptions is far above the four options there are.
	maxOptions = 16
)

// request is a read request as it stood in the packet, quirks removed.
type request struct {
	name    string
	options map[string]string // by lower-case name; of duplicates the first
}

// isRequest tells the packets that may be answered at all from those that only
// belong inside a transfer; answering the latter would let two servers be set
// against each other.
func isRequest(p []byte) bool {
	if len(p) < 2 {
		return false
	}
	op := binary.BigEndian.Uint16(p)
	return op == opRRQ || op == opWRQ
}

// parseRequest reads a packet that isRequest. The error is a *Refusal; the
// request holds the name as far as it could be read.
func parseRequest(p []byte) (request, error) {
	var r request
	if len(p) > maxRequest {
		return r, &Refusal{Code: codeIllegal, Message: "request is longer than 512 bytes"}
	}
	op, rest := binary.BigEndian.Uint16(p), p[2:]
	name, rest, ok := cutString(rest)
	if !ok {
		return r, &Refusal{Code: codeIllegal, Message: "request without a file name"}
	}
	var err error
	if r.name, err = cleanName(name); err != nil {
		return r, err
	}
	if op == opWRQ {
		return r, &Refusal{Code: codeAccess, Message: "this server is read-only"}
	}
	mode, rest, ok := cutString(rest)
	if !ok {
		return r, &Refusal{Code: codeIllegal, Message: "request without a transfer mode"}
	}
	// RFC 1350 section 5 allows any mixture of case; old PXE ROMs send "OCTET".
	switch {
	case strings.EqualFold(mode, "octet"):
	case strings.EqualFold(mode, "netascii"):
		// The default of tftp-hpa's client: who tries the server by hand is told
		// what to type. No firmware asks for it.
		return r, &Refusal{Code: codeIllegal, Message: "netascii would damage the file: ask in octet mode (tftp: mode binary)"}
	default:
		return r, &Refusal{Code: codeIllegal, Message: "only octet mode is served"}
	}
	r.options, err = parseOptions(rest)
	return r, err
}

// parseOptions reads pairs of name and value up to the end of the packet.
func parseOptions(p []byte) (map[string]string, error) {
	options := make(map[string]string, 4)
	for n := 0; len(p) > 0; n++ {
		name, rest, ok := cutString(p)
		if ok && name == "" {
			break // zeros that pad a packet, not an option
		}
		value, rest, ok2 := cutString(rest)
		if !ok || !ok2 {
			return nil, &Refusal{Code: codeOption, Message: "option list is cut off"}
		}
		if n == maxOptions {
			return nil, &Refusal{Code: codeOption, Message: "more than 16 options"}
		}
		// RFC 2347: names are not case-sensitive; old PXE ROMs send "BLKSIZE".
		name = strings.ToLower(name)
		if _, known := options[name]; !known {
			options[name] = value
		}
		p = rest
	}
	return options, nil
}

// cutString takes a NUL-terminated string off the front of p.
func cutString(p []byte) (s string, rest []byte, ok bool) {
	head, rest, ok := bytes.Cut(p, []byte{0})
	return string(head), rest, ok
}
