package tftp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// scripted is a wire whose client gives the listed answers, one per read, and is
// silent from then on; nil stands for a timeout. No time passes.
type scripted struct {
	answers [][]byte
	sent    [][]byte
}

func (w *scripted) Send(p []byte) { w.sent = append(w.sent, bytes.Clone(p)) }

func (w *scripted) Recv(_ context.Context, p []byte, _ time.Time) (int, error) {
	if len(w.answers) == 0 || w.answers[0] == nil {
		w.answers = w.answers[min(1, len(w.answers)):]
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(p, w.answers[0])
	w.answers = w.answers[1:]
	return n, nil
}

// blocks lists what was sent: 0 for the OACK, else the block number.
func (w *scripted) blocks() (list []int) {
	for _, p := range w.sent {
		n := 0
		if p[1] == opDATA {
			n = int(binary.BigEndian.Uint16(p[2:]))
		}
		list = append(list, n)
	}
	return list
}

func acks(blocks ...int) (list [][]byte) {
	for _, n := range blocks {
		if n < 0 {
			list = append(list, nil)
			continue
		}
		list = append(list, ackPacket(uint16(n)))
	}
	return list
}

const silent = -1

func TestT06_Flights(t *testing.T) {
	oack := packet(opOACK, "windowsize", "4")
	lockstep, windowed := terms{block: 512, window: 1}, terms{block: 512, window: 4, oack: oack}
	tests := map[string]struct {
		terms terms
		size  int
		acks  [][]byte
		sent  []int
	}{
		"lock-step":                 {lockstep, 1000, acks(1, 2), []int{1, 2}},
		"empty file":                {lockstep, 0, acks(1), []int{1}},
		"multiple of the block":     {lockstep, 1024, acks(1, 2, 3), []int{1, 2, 3}},
		"copied ack draws no data":  {lockstep, 1500, acks(1, 1, 1, 2, 1, 2, 3), []int{1, 2, 3}},
		"ack of the future":         {lockstep, 1000, acks(2, 7, 65535, 1, 2), []int{1, 2}},
		"silence draws the same":    {lockstep, 1000, acks(silent, 1, silent, silent, 2), []int{1, 1, 2, 2, 2}},
		"window":                    {windowed, 512*9 + 1, acks(0, 4, 8, 10), []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
		"hole in a window":          {windowed, 512*6 + 1, acks(0, 2, 6, 7), []int{0, 1, 2, 3, 4, 3, 4, 5, 6, 7}},
		"copied ack, windowed":      {windowed, 512*6 + 1, acks(0, 0, 2, 2, 2, 0, 6, 7), []int{0, 1, 2, 3, 4, 3, 4, 5, 6, 7}},
		"first of a window lost":    {windowed, 512*4 + 1, acks(0, 0, silent, 4, 5), []int{0, 1, 2, 3, 4, 1, 2, 3, 4, 5}},
		"oack lost":                 {windowed, 512, acks(silent, silent, 0, 2), []int{0, 0, 0, 1, 2}},
		"data acknowledged in oack": {windowed, 512, acks(1, 2, 0, 2), []int{0, 1, 2}},
		"rubbish":                   {lockstep, 0, [][]byte{{}, {0}, {9, 9, 9, 9}, {0, 4}, ackPacket(1)}, []int{1}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := &scripted{answers: tt.acks}
			file := content(tt.size)
			s := newLoop(w, section(file), tt.terms, new(bufferPool), func() {})
			require.NoError(t, s.run(t.Context()))
			require.Equal(t, tt.sent, w.blocks())
			require.Equal(t, int64(tt.size), s.confirmed())
			require.Equal(t, file, w.file(), "bytes of the blocks")
		})
	}
}

// file puts the blocks together, whatever their order and repetition.
func (w *scripted) file() []byte {
	blocks := make(map[int][]byte)
	for i, n := range w.blocks() {
		blocks[n] = w.sent[i][headerSize:]
	}
	file := []byte{}
	for n := 1; n <= len(blocks); n++ {
		file = append(file, blocks[n]...)
	}
	return file
}

func TestSenderGivesUp(t *testing.T) {
	nine := acks(1, silent, silent, silent, silent, silent, silent, silent, silent, silent)
	w := &scripted{answers: nine}
	s := newLoop(w, section(content(5000)), terms{block: 512, window: 1}, new(bufferPool), func() {})
	err := s.run(t.Context())
	require.ErrorIs(t, err, errSilent)
	require.ErrorContains(t, err, "block 2 of 10, 9 retries")
	require.Equal(t, []int{1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2}, w.blocks())
	require.Equal(t, 9, s.retransmits)
	require.Equal(t, int64(512), s.confirmed())

	// A client that repeats its ACK is alive: it gets nine more.
	w = &scripted{answers: append(nine, acks(1, silent, silent, silent, silent, silent, silent, silent, silent, silent, 2)...)}
	s = newLoop(w, section(content(600)), terms{block: 512, window: 1}, new(bufferPool), func() {})
	require.NoError(t, s.run(t.Context()))
}

// TestSenderMeasuresCleanFlights: an ACK to a flight that was sent twice belongs
// to either, and tells nothing of the network (Karn), but to begin with.
func TestSenderMeasuresCleanFlights(t *testing.T) {
	const began, second = 1000, int64(time.Second)
	at := func(seconds int64) time.Time { return time.Unix(began+seconds, 0) }
	s := newSender(2000, terms{block: 512, window: 1})
	s.fly(at(0))
	require.NoError(t, s.silence(at(1)))
	s.fly(at(1))
	require.True(t, s.ack(1, at(3)))
	require.Equal(t, 2*second, int64(s.pacer.srtt), "the first one sent had a second before")
	for n := int64(0); n < 2; n++ {
		s.fly(at(4 + 4*n))
		require.NoError(t, s.silence(at(6+4*n)))
	}
	s.fly(at(12))
	require.True(t, s.ack(2, at(13)))
	require.Equal(t, 2*second, int64(s.pacer.srtt))
	require.Equal(t, 2, s.pacer.timeouts)
	s.fly(at(13))
	require.True(t, s.ack(3, at(15)))
	require.Zero(t, s.pacer.timeouts)
}

// TestSenderListensToTheClientsTimer: an answer that confirms nothing draws the
// flight again when it can't be a copy that the network has made.
func TestSenderListensToTheClientsTimer(t *testing.T) {
	s := newSender(2000, terms{block: 512, window: 1})
	now := time.Unix(1000, 0)
	s.fly(now)
	require.False(t, s.ack(0, now.Add(time.Second)), "who has never answered can be anybody")
	require.True(t, s.ack(1, now.Add(time.Second)))
	now = now.Add(time.Second)
	s.fly(now)
	require.False(t, s.ack(1, now.Add(minRepeat/2)))
	require.True(t, s.ack(1, now.Add(minRepeat)))
}

func TestSenderReadFailure(t *testing.T) {
	broken := io.NewSectionReader(bytes.NewReader(content(1000)), 0, 5000) // shrunk after it was opened
	s := newLoop(&scripted{}, broken, terms{block: 512, window: 1}, new(bufferPool), func() {})
	require.ErrorIs(t, s.run(t.Context()), io.EOF)
}

func TestSenderClientError(t *testing.T) {
	abort := append(packet(opERROR), "\x00\x00User aborted\x00"...)
	tests := map[string]struct {
		probe   bool
		answers [][]byte
		want    bool
	}{
		"ovmf probe":          {true, [][]byte{abort}, true},
		"no size asked":       {false, [][]byte{abort}, false},
		"after the first ack": {true, [][]byte{ackPacket(0), abort}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			calls := 0
			tm := terms{block: 512, window: 1, probe: tt.probe, oack: packet(opOACK, "tsize", "600")}
			s := newLoop(&scripted{answers: tt.answers}, section(content(600)), tm, new(bufferPool), func() { calls++ })
			err := s.run(t.Context())
			require.ErrorContains(t, err, `client ended the transfer with tftp error 0 "User aborted"`)
			require.Equal(t, tt.want, errors.Is(err, ErrSizeProbe))
			require.Equal(t, 1, calls)
		})
	}
}

// TestT02_OneDatagram waits out a request that no one answers.
func TestT02_OneDatagram(t *testing.T) {
	tests := map[string]map[string]string{
		"no options":  nil,
		"window 64":   {"windowsize": "64"},
		"timeout 1":   {"windowsize": "64", "timeout": "1"},
		"timeout 255": {"blksize": "65464", "windowsize": "64", "timeout": "255"},
	}
	for name, options := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &link{in: make(chan []byte), out: &lossy{to: make(chan []byte, 1000)}}
				began := time.Now()
				s := newLoop(w, section(content(1e6)), negotiate(options, 1e6, 65504), new(bufferPool), func() { t.Error("answered") })
				require.ErrorIs(t, s.run(t.Context()), ErrNoAnswer)
				require.LessOrEqual(t, time.Since(began), 15*time.Second)
				<-time.After(time.Minute) // of the bubble's clock
				require.Len(t, w.out.to, 3)
				first := <-w.out.to
				require.LessOrEqual(t, len(first), headerSize+defaultBlock)
				require.Equal(t, first, <-w.out.to)
				require.Equal(t, first, <-w.out.to)
			})
		})
	}
}

// lossy is one direction of a bad network.
type lossy struct {
	to                    chan []byte
	drop, double, reorder float64
	random                func() float64
	held                  []byte
}

func (l *lossy) send(p []byte) {
	p = bytes.Clone(p)
	if l.random == nil {
		l.to <- p
		return
	}
	if l.random() < l.drop {
		return
	}
	if l.held == nil && l.random() < l.reorder {
		l.held = p
		return
	}
	l.put(p)
	if l.random() < l.double {
		l.put(p)
	}
	if l.held != nil {
		l.put(l.held)
		l.held = nil
	}
}

func (l *lossy) put(p []byte) {
	select {
	case l.to <- p:
	default: // a full queue loses, too
	}
}

// link is a wire in memory.
type link struct {
	in  chan []byte
	out *lossy
}

func (w *link) Send(p []byte) { w.out.send(p) }

func (w *link) Recv(ctx context.Context, p []byte, deadline time.Time) (int, error) {
	select {
	case b := <-w.in:
		return copy(p, b), nil
	default:
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case b := <-w.in:
		return copy(p, b), nil
	case <-timer.C:
		return 0, os.ErrDeadlineExceeded
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// noise is a file of any length without the memory: 64 KiB, turned a little
// further each time they repeat, so that blocks can't be swapped unseen.
type noise struct{ bytes []byte }

func (n noise) ReadAt(p []byte, off int64) (int, error) {
	for done := 0; done < len(p); {
		at := off + int64(done)
		turned := int((at + at>>16*7919) & 0xffff)
		left := int(0x10000 - at&0xffff)
		done += copy(p[done:min(len(p), done+left)], n.bytes[turned:])
	}
	return len(p), nil
}

// TestT06_Loss moves a file through networks that lose, double and reorder. At
// 512 bytes a block, 16-bit block numbers wrap every 32 MiB. Where each copy of a
// block draws an ACK from inside the window, as from OVMF, a window may be sent
// for each block; it must never be more.
func TestT06_Loss(t *testing.T) {
	size, windowed := int64(33<<20+77), int64(33<<20+77)
	if testing.Short() {
		windowed = 4 << 20
	}
	tests := map[string]struct {
		size                  int64
		window                int
		drop, double, reorder float64
		most                  float64 // datagrams per block
	}{
		"lock-step, 20 %":         {size, 1, 0.2, 0.2, 0, 1.6},
		"window 16, 20 %":         {windowed, 16, 0.2, 0.2, 0, 10},
		"window 64, reordered":    {4 << 20, 64, 0.02, 0.02, 0.01, 10},
		"lock-step, only doubled": {4 << 20, 1, 0, 1, 0, 1},
		"window 8, only doubled":  {4 << 20, 8, 0, 1, 0, 8},
		"nothing wrong, windowed": {4 << 20, 8, 0, 0, 0, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				direction := func(seed uint64) *lossy {
					return &lossy{to: make(chan []byte, 256), drop: tt.drop, double: tt.double, reorder: tt.reorder, random: pseudorandom(seed)}
				}
				toClient, toServer := direction(1), direction(2)
				file := io.NewSectionReader(noise{content(1 << 16)}, 0, tt.size)
				tm := negotiate(map[string]string{"windowsize": "65535", "tsize": "0"}, tt.size, 1468)
				tm.window = tt.window
				s := newLoop(&link{toServer.to, toClient}, file, tm, new(bufferPool), func() {})
				ctx, cancel := context.WithCancel(t.Context())
				got := make(chan [32]byte)
				go func() { got <- receive(ctx, toClient.to, toServer, defaultBlock, tt.window, time.Second) }()
				require.NoError(t, s.run(t.Context()))
				cancel()
				want := sha256.New()
				_, _ = io.Copy(want, file)
				require.Equal(t, [32]byte(want.Sum(nil)), <-got)
				require.LessOrEqual(t, float64(s.datagrams), tt.most*float64(s.last+1), "datagrams")
			})
		})
	}
}

// receive is a client that asks again after a time without data, and answers
// until the server has had its last ACK.
func receive(ctx context.Context, in chan []byte, out *lossy, block, window int, patience time.Duration) [32]byte {
	h := sha256.New()
	r := receiver{block: block, window: window, out: h, ack: func(n uint16) { out.send(ackPacket(n)) }}
	timer := time.NewTimer(patience)
	for {
		select {
		case p := <-in:
			_ = r.take(p)
		case <-timer.C:
			r.repeat()
		case <-ctx.Done():
			return [32]byte(h.Sum(nil))
		}
		timer.Reset(patience)
	}
}

// pseudorandom is a xorshift: cheaper than math/rand's lock, and the same each time.
func pseudorandom(seed uint64) func() float64 {
	x := seed*0x9e3779b97f4a7c15 + 1
	return func() float64 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		return float64(x>>11) / (1 << 53)
	}
}

// obedient answers every flight with the ACK of its last block.
type obedient struct{ last uint16 }

func (w *obedient) Send(p []byte) { w.last = binary.BigEndian.Uint16(p[2:]) }

func (w *obedient) Recv(_ context.Context, p []byte, _ time.Time) (int, error) {
	p[0], p[1], p[2], p[3] = 0, opACK, byte(w.last>>8), byte(w.last)
	return headerSize, nil
}

func TestSenderAllocatesNothingPerBlock(t *testing.T) {
	pool := new(bufferPool)
	allocs := func(blocks int) float64 {
		file := section(content(blocks * 512))
		return testing.AllocsPerRun(10, func() {
			s := newLoop(&obedient{}, file, terms{block: 512, window: 4}, pool, func() {})
			require.NoError(t, s.run(t.Context()))
		})
	}
	require.InDelta(t, allocs(10), allocs(10_000), 5)
}

// stuck confirms one block, and from then on repeats that every four seconds.
type stuck struct{ first bool }

func (*stuck) Send([]byte) {}

func (w *stuck) Recv(_ context.Context, p []byte, deadline time.Time) (int, error) {
	if !w.first {
		w.first = true
		return copy(p, ackPacket(1)), nil
	}
	if wait := time.Until(deadline); wait < 4*time.Second {
		time.Sleep(wait)
		return 0, os.ErrDeadlineExceeded
	}
	time.Sleep(4 * time.Second)
	return copy(p, ackPacket(1)), nil
}

func TestT04_ClientWithoutProgressIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		s := newLoop(&stuck{}, section(content(5000)), terms{block: 512, window: 1}, &bufferPool{}, func() {})
		require.ErrorIs(t, s.run(t.Context()), errStalled)
		require.Less(t, time.Since(begun), 2*time.Minute)
	})
}
