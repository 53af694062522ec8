package tftp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

const (
	// Before its first answer a client may be the victim of a forged request:
	// it gets one datagram and these repetitions of it.
	retriesUnanswered = 2
	retriesAnswered   = 5
)

// wire carries the datagrams of one transfer. Send may lose a datagram and need
// not say so. Recv returns one datagram from the client, os.ErrDeadlineExceeded
// at the deadline, or the cause of the context's end.
type wire interface {
	Send(p []byte)
	Recv(ctx context.Context, p []byte, deadline time.Time) (int, error)
}

// maxStall is how long a client may repeat itself without confirming a block.
const maxStall = time.Minute

// sender is one transfer. Lock-step is a window of one block (RFC 7440 section 4).
//
// Blocks are counted from 1 without wrapping; on the wire they are cut to 16
// bits, so that 65535 is followed by 0. The OACK is block 0, since that is what
// the client acknowledges it with.
type sender struct {
	wire   wire
	terms  terms
	chunk  chunk
	size   int64
	pacer  pacer
	answer func() // called at the client's first answer

	acked  int64 // confirmed by the client; -1 while the OACK is not
	sent   int64 // last block of the flight that is out
	high   int64 // last block ever sent
	last   int64 // last block of the file: the first that is not full
	sentAt time.Time
	moved  time.Time // when a new block was last confirmed

	answered    bool
	resent      bool // the flight that is out holds repeated blocks
	retries     int  // since the client was last heard of
	datagrams   int
	retransmits int
	in          [maxAnswer]byte
}

func newSender(w wire, file *io.SectionReader, t terms, pool *bufferPool, answer func()) *sender {
	s := &sender{
		wire:   w,
		terms:  t,
		chunk:  chunk{file: file, pool: pool, window: t.block * t.window},
		size:   file.Size(),
		pacer:  pacer{fixed: t.timeout},
		answer: answer,
		last:   file.Size()/int64(t.block) + 1,
	}
	s.high = -1
	if t.oack != nil {
		s.acked = -1
	}
	return s
}

// run sends flights until the client has confirmed the last block.
func (s *sender) run(ctx context.Context) error {
	defer s.chunk.close()
	for s.acked < s.last {
		if err := s.fly(); err != nil {
			return err
		}
		if err := s.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// confirmed is the number of the file's bytes that the client has acknowledged.
func (s *sender) confirmed() int64 {
	return min(max(s.acked, 0)*int64(s.terms.block), s.size)
}

// fly sends the blocks behind the last confirmed one, up to a window of them.
// The first flight is one datagram whatever the window: OACK or, where no option
// was accepted, DATA 1 in lock-step.
func (s *sender) fly() error {
	first := s.acked + 1
	s.sent = min(s.acked+int64(s.terms.window), s.last)
	if first == 0 {
		s.sent = 0
	}
	s.resent = first <= s.high
	for n := first; n <= s.sent; n++ {
		if err := s.send(n); err != nil {
			return err
		}
		s.datagrams++
		if n <= s.high {
			s.retransmits++
		}
	}
	s.high = max(s.high, s.sent)
	s.sentAt = time.Now()
	return nil
}

func (s *sender) send(n int64) error {
	if n == 0 {
		s.wire.Send(s.terms.oack)
		return nil
	}
	off := (n - 1) * int64(s.terms.block)
	p, err := s.chunk.packet(off, int(min(int64(s.terms.block), s.size-off)))
	if err != nil {
		return fmt.Errorf("block %d: %w", n, err)
	}
	before := [headerSize]byte(p)
	binary.BigEndian.PutUint16(p, opDATA)
	binary.BigEndian.PutUint16(p[2:], uint16(n))
	s.wire.Send(p)
	copy(p, before[:])
	return nil
}

// await returns when another flight is due: the client has confirmed a block, or
// was silent for too long. Only silence makes the same flight go out again. An
// answer that confirms nothing new does not: if each copy of an ACK drew a copy
// of the data, they would double each other to the end of the file (RFC 1123
// section 4.2.3.1, the Sorcerer's Apprentice).
func (s *sender) await(ctx context.Context) error {
	for {
		n, err := s.wire.Recv(ctx, s.in[:], s.sentAt.Add(s.wait()))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return s.timeout()
		}
		if err != nil {
			return err
		}
		a, ok := parseAnswer(s.in[:n])
		if !ok {
			continue
		}
		if a.op == opERROR {
			return s.aborted(a)
		}
		if s.ack(a.number) {
			return nil
		}
	}
}

// wait keeps clients that ask for long timeouts from staying unanswered as long.
func (s *sender) wait() time.Duration {
	if !s.answered {
		return min(s.pacer.wait(), maxWait)
	}
	return s.pacer.wait()
}

func (s *sender) timeout() error {
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
	if s.answered && time.Since(s.moved) > max(maxStall, retriesAnswered*s.wait()) {
		return fmt.Errorf("block %d of %d, none confirmed since %s: %w", s.sent, s.last, s.moved.Format(time.TimeOnly), errStalled)
	}
	s.retries++
	s.pacer.timeouts++
	return nil
}

// ack reports whether the client has confirmed a block of the flight that is
// out. Short of the flight's end it says that the next block was lost; the new
// window starts there (RFC 7440 section 4).
func (s *sender) ack(number uint16) bool {
	ahead := int64(number - uint16(s.acked))
	if ahead > s.sent-s.acked {
		return false // of an earlier window, or forged
	}
	if ahead == 0 {
		// The client repeats itself: it lives, but has not got what is out.
		if s.answered {
			s.retries = 0
		}
		return false
	}
	s.heard()
	s.acked += ahead
	s.retries, s.moved = 0, time.Now()
	if s.acked == s.sent && !s.resent {
		s.pacer.measured(time.Since(s.sentAt))
	}
	return true
}

// aborted turns a client's ERROR into the error of the transfer.
func (s *sender) aborted(a answer) error {
	s.heard()
	err := &clientError{code: a.number, text: a.text}
	// OVMF asks for tsize, blksize and windowsize,
	// takes the size from the OACK, and ends with an ERROR; then it asks again
	// without tsize.
	if s.acked < 0 && s.terms.probe {
		return fmt.Errorf("%w: %w", ErrSizeProbe, err)
	}
	return err
}

func (s *sender) heard() {
	if !s.answered {
		s.answered, s.moved = true, time.Now()
		s.answer()
	}
}
