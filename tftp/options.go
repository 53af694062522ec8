package tftp

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"time"
)

const (
	minBlock     = 8     // RFC 2348
	maxBlock     = 65464 // RFC 2348
	defaultBlock = 512   // RFC 1350

	maxWindow      = 64
	maxWindowBytes = 256 << 10

	// The range of utimeout, in microseconds, as tftp-hpa has it.
	minMicros = 10_000
	maxMicros = 255_000_000
)

// terms is what server and client have agreed on.
type terms struct {
	block   int           // bytes
	window  int           // blocks, RFC 7440
	timeout time.Duration // 0: the server measures
	probe   bool          // the client has asked for the size
	oack    []byte        // nil: no option was accepted, DATA 1 comes first
}

// negotiate answers a client's options for a file of the given size. largest is
// the block that the client's network carries without fragments.
//
// An option that is unknown, is not a plain decimal number, or is out of its
// range where the RFC lets the server only repeat or lower it (blksize below 8,
// windowsize 0, timeout outside 1 to 255) is left out of the OACK, as RFC 2347
// has it: the transfer goes on without it. ERROR 8 is for lists that cannot be
// read at all. When nothing is accepted there is no OACK.
//
// Two options are no standard, but tftp-hpa's: blksize2, a block that has to be
// a power of two, and utimeout, a timeout in microseconds. Beside blksize or
// timeout they are left out: a client that knows the standard gets that.
func negotiate(options map[string]string, size int64, largest int) terms {
	t := terms{block: defaultBlock, window: 1}
	oack := binary.BigEndian.AppendUint16(nil, opOACK)
	if v, ok := number(options["blksize"]); ok && v >= minBlock {
		t.block = min(v, largest, maxBlock)
		oack = appendOption(oack, "blksize", int64(t.block))
	} else if v, ok := number(options["blksize2"]); ok && v >= minBlock {
		t.block = powerOfTwo(min(v, largest, maxBlock))
		oack = appendOption(oack, "blksize2", int64(t.block))
	}
	if v, ok := number(options["timeout"]); ok && v >= 1 && v <= 255 {
		t.timeout = time.Duration(v) * time.Second
		oack = appendOption(oack, "timeout", int64(v))
	} else if v, err := strconv.ParseUint(options["utimeout"], 10, 32); err == nil && v >= minMicros && v <= maxMicros {
		t.timeout = time.Duration(v) * time.Microsecond
		oack = appendOption(oack, "utimeout", int64(v))
	}
	// RFC 2349 has clients send 0; what else they send is no reason to hide the size.
	if _, err := strconv.ParseUint(options["tsize"], 10, 64); err == nil {
		t.probe = true
		oack = appendOption(oack, "tsize", size)
	}
	if v, ok := number(options["windowsize"]); ok && v >= 1 {
		t.window = min(v, maxWindow, maxWindowBytes/t.block)
		oack = appendOption(oack, "windowsize", int64(t.window))
	}
	if len(oack) > 2 {
		t.oack = oack
	}
	return t
}

// powerOfTwo is the largest one that is not above n, which is positive.
func powerOfTwo(n int) int { return 1 << (bits.Len(uint(n)) - 1) }

// number reads a strict decimal of 16 bits: digits only, no sign, no space.
func number(s string) (int, bool) {
	v, err := strconv.ParseUint(s, 10, 16)
	return int(v), err == nil
}

func appendOption(p []byte, name string, value int64) []byte {
	p = append(append(p, name...), 0)
	return append(strconv.AppendInt(p, value, 10), 0)
}
