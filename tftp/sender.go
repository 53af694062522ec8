package tftp

import (
	"fmt"
	"time"
)

const (
	// Before its first answer a client may be the victim of a forged request:
	// it gets one datagram and these repetitions of it.
	retriesUnanswered = 2
	retriesAnswered   = 9
)

// minRepeat is what a client takes to repeat itself, and a network's copies do
// not. The most impatient known is iPXE, 250 ms.
const minRepeat = 100 * time.Millisecond

// minPause is what a worker's clock can tell apart.
const minPause = time.Millisecond

// maxStall is how long a client may repeat itself without confirming a block.
const maxStall = time.Minute

// sender decides what is sent when: one transfer without its socket, its clock
// and its file. Lock-step is a window of one block (RFC 7440 section 4). After
// fly has said which blocks are due, either an answer comes (take) or the
// deadline passes (silence); both say whether to fly again.
//
// Blocks are counted from 1 without wrapping; on the wire they are cut to 16
// bits, so that 65535 is followed by 0. The OACK is block 0, since that is what
// the client acknowledges it with.
type sender struct {
	terms terms
	size  int64
	pacer pacer

	acked  int64 // confirmed by the client; -1 while the OACK is not
	sent   int64 // last block of the flight that is out
	high   int64 // last block ever sent
	last   int64 // last block of the file: the first that is not full
	sentAt time.Time
	moved  time.Time // when a new block was last confirmed

	answered    bool
	resent      bool      // the flight that is out holds repeated blocks
	first       int64     // its first block
	before      int64     // the last block that had been sent when it left
	known       int64     // the last block that had been sent at sentAt
	more        bool      // what is due is its continuation
	copies      int       // answers to come that confirm nothing, since they are to copies
	pause       time.Time // when to go on, unless it turns out that a block was lost
	retries     int       // since the client was last heard of
	datagrams   int
	retransmits int
}

func newSender(size int64, t terms) sender {
	s := sender{terms: t, size: size, pacer: pacer{fixed: t.timeout}, high: -1, last: size/int64(t.block) + 1}
	if t.oack != nil {
		s.acked = -1
	}
	return s
}

// done reports whether the client has confirmed the last block.
func (s *sender) done() bool { return s.acked >= s.last }

// confirmed is the number of the file's bytes that the client has acknowledged.
func (s *sender) confirmed() int64 {
	return min(max(s.acked, 0)*int64(s.terms.block), s.size)
}

// flight is the blocks behind the last confirmed one, up to a window of them,
// the last included. The first flight is one datagram whatever the window: OACK
// or, where no option was accepted, DATA 1 in lock-step.
func (s *sender) flight() (first, last int64) {
	if s.acked < 0 {
		return 0, 0
	}
	if s.more {
		return s.sent + 1, min(s.acked+int64(s.terms.window), s.last)
	}
	return s.acked + 1, min(s.acked+int64(s.terms.window), s.last)
}

// fly is flight for who sends it now.
func (s *sender) fly(now time.Time) (first, last int64) {
	first, last = s.flight()
	if !s.more {
		s.first, s.before, s.resent, s.copies = first, s.high, first <= s.high, -1
	}
	s.more, s.pause = false, time.Time{}
	s.datagrams += int(last - first + 1)
	s.retransmits += int(max(min(last, s.high)-first+1, 0))
	s.known, s.sent, s.high, s.sentAt = s.high, last, max(s.high, last), now
	return first, last
}

// span is where the bytes of the blocks from first to last lie in the file.
func (s *sender) span(first, last int64) (off int64, n int) {
	off = (first - 1) * int64(s.terms.block)
	return off, int(min((last-first+1)*int64(s.terms.block), s.size-off))
}

// header renders what stands before a block's bytes.
func header(n int64) [headerSize]byte {
	return [headerSize]byte{0, opDATA, byte(n >> 8), byte(n)}
}

// take reads an answer of the client. Flying again is due when it has confirmed
// a block. An answer that confirms nothing new draws nothing: if each copy of an
// ACK drew a copy of the data, they would double each other to the end of the
// file (RFC 1123 section 4.2.3.1, the Sorcerer's Apprentice).
func (s *sender) take(a answer, now time.Time) (due bool, err error) {
	if a.op == opERROR {
		return false, s.aborted(a, now)
	}
	return s.ack(a.number, now), nil
}

// deadline is when the flight that is out has been without an answer for too
// long. Clients that ask for long timeouts do not stay unanswered as long.
func (s *sender) deadline() time.Time {
	if s.more {
		return s.pause
	}
	return s.sentAt.Add(s.wait())
}

func (s *sender) wait() time.Duration {
	if !s.answered {
		return min(s.pacer.wait(), maxWait)
	}
	return s.pacer.wait()
}

// silence is called at the deadline: the same flight goes out again, or the
// transfer is given up.
func (s *sender) silence(now time.Time) error {
	if s.more {
		return nil
	}
	limit := retriesAnswered
	if !s.answered {
		limit = retriesUnanswered
	}
	if s.retries == limit {
		if !s.answered {
			return ErrNoAnswer
		}
		return fmt.Errorf("block %d of %d, %d retries: %w", s.sent, s.last, limit, errSilent)
	}
	// A client that repeats itself for ever lives, but holds a place (T4).
	if s.answered && now.Sub(s.moved) > max(maxStall, retriesAnswered*s.wait()) {
		return fmt.Errorf("block %d of %d, none confirmed since %s: %w", s.sent, s.last, s.moved.Format(time.TimeOnly), errStalled)
	}
	s.retries++
	s.pacer.timeouts++
	return nil
}

// ack reports whether to fly again: the client has confirmed a block of the
// flight that is out. Short of the flight's end it says that the next block was
// lost; the new window starts there (RFC 7440 section 4).
func (s *sender) ack(number uint16, now time.Time) bool {
	ahead := int64(number - uint16(s.acked))
	if ahead > s.sent-s.acked {
		return false // of an earlier window, or forged
	}
	if ahead == 0 {
		return s.repeated(now)
	}
	s.heard(now)
	s.acked += ahead
	s.retries, s.moved, s.more = 0, now, false
	// No earlier datagram can have drawn this answer; and before the first
	// measurement an earlier one was a second ago.
	if s.acked > s.known || s.pacer.srtt == 0 {
		s.pacer.measured(now.Sub(s.sentAt))
	}
	if s.acked < s.sent && s.resent && s.acked <= s.before {
		s.resume(now)
		return false
	}
	return true
}

// resume goes on with a flight instead of starting over. A client that
// acknowledges whatever comes out of turn, as EDK2's does, answers the copies in
// a flight that repeats blocks: with "the next one is missing", while that one is
// on its way. Starting over would put new copies on the way, and one lost packet
// would have every window sent twice to the end of the file. So the sender waits
// for a moment: when there are more such answers than copies, the next block was
// lost; else what the window lacks is sent.
func (s *sender) resume(now time.Time) {
	s.copies = int(s.acked - s.first)
	s.more = s.sent < min(s.acked+int64(s.terms.window), s.last)
	s.pause = now.Add(max(2*s.pacer.srtt, minPause))
}

// repeated reports whether to fly again for an answer that confirms nothing. The
// client lives, but has not got what is out. Mostly its answer is a copy, of the
// network's or drawn by a copy of a block, and comes at once. Else its timer has
// rung, sooner than ours: it waits for us, and to be patient would only be slow.
func (s *sender) repeated(now time.Time) bool {
	if !s.answered {
		return false
	}
	s.retries = 0
	s.pacer.timeouts = min(s.pacer.timeouts, 1)
	if s.copies < 0 {
		return now.Sub(s.sentAt) >= minRepeat
	}
	s.copies--
	if s.copies < 0 {
		s.more = false
		return true
	}
	return false
}

// aborted turns a client's ERROR into the error of the transfer.
func (s *sender) aborted(a answer, now time.Time) error {
	s.heard(now)
	err := &clientError{code: a.number, text: a.text}
	// EDK2's firmware (OVMF 2022.11 to 2026.08) asks for tsize, blksize and windowsize,
	// takes the size from the OACK, and ends with an ERROR; then it asks again
	// without tsize.
	if s.acked < 0 && s.terms.probe {
		return fmt.Errorf("%w: %w", ErrSizeProbe, err)
	}
	return err
}

func (s *sender) heard(now time.Time) {
	if !s.answered {
		s.answered, s.moved = true, now
	}
}

// appendFlight renders the blocks from first to last one behind the other, as
// the kernel cuts them into datagrams; content has their bytes.
func (s *sender) appendFlight(p []byte, c *source, first, last int64) []byte {
	if first == 0 {
		return append(p, s.terms.oack...)
	}
	for n := first; n <= last; n++ {
		h := header(n)
		p = append(append(p, h[:]...), c.bytes(s.span(n, n))...)
	}
	return p
}
