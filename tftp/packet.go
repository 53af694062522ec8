package tftp

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Opcodes of RFC 1350 section 5 and RFC 2347 (OACK).
const (
	opRRQ   = 1
	opWRQ   = 2
	opDATA  = 3
	opACK   = 4
	opERROR = 5
	opOACK  = 6
)

// headerSize is what stands before the bytes of a DATA packet: opcode and block.
const headerSize = 4

// maxAnswer is room for an ACK or an ERROR; a longer text is cut by the read.
const maxAnswer = 256

// answer is what a client sends during a transfer: an ACK or an ERROR.
type answer struct {
	op     uint16
	number uint16 // block of an ACK, code of an ERROR
	text   string // of an ERROR
}

// parseAnswer reads an ACK or an ERROR. Bytes behind an ACK are ignored: RFC
// 1350 does not forbid them and a transfer is not worth the pedantry.
func parseAnswer(p []byte) (answer, bool) {
	if len(p) < headerSize {
		return answer{}, false
	}
	a := answer{op: binary.BigEndian.Uint16(p), number: binary.BigEndian.Uint16(p[2:])}
	switch a.op {
	case opACK:
		return a, true
	case opERROR:
		text, _, _ := bytes.Cut(p[headerSize:], []byte{0})
		a.text = printable(string(text))
		return a, true
	default:
		return answer{}, false
	}
}

// clientError is the ERROR packet with which a client ended its transfer.
type clientError struct {
	code uint16
	text string
}

func (e *clientError) Is(target error) bool { return target == ErrAborted }

func (e *clientError) Error() string {
	return fmt.Sprintf("client ended the transfer with tftp error %d %q", e.code, e.text)
}

// errorPacket renders a refusal as an ERROR packet.
func errorPacket(r *Refusal) []byte {
	p := binary.BigEndian.AppendUint16(nil, opERROR)
	p = binary.BigEndian.AppendUint16(p, r.Code)
	p = append(p, printable(r.Message)...)
	return append(p, 0)
}

// printable makes a text fit for an ERROR packet, a console and a log.
func printable(s string) string {
	b := []byte(s[:min(len(s), maxMessage)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}
