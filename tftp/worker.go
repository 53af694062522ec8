package tftp

import (
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// worker carries out transfers: one goroutine for all that came in by one
// request socket. It waits for the sockets of all of them at once and never for
// anything else: files are opened and read by goroutines that last as long.
//
// It works in rounds: it reads all answers that have come, and then sends what
// is due. Doing the same thing many times in a row is what makes it cheap.
type worker struct {
	service *service
	in      *inlet
	epoll   int
	bell    int // eventfd: there is mail
	one     [8]byte

	sockets map[int32]*transfer
	clients map[netip.AddrPort]*transfer // where there is a single port
	asking  map[*ticket]*transfer        // whose clients have not answered
	timers  timers
	due     []*transfer
	events  []unix.EpollEvent
	packet  [maxAnswer]byte
	flight  []byte

	mu      sync.Mutex
	mail    []mail // guarded by mu
	reading []mail // the other one of two that take turns
	rung    bool   // guarded by mu: the bell has been rung and not been heard
	closed  bool   // guarded by mu
}

// mail is what others have to tell a worker.
type mail struct {
	transfer *transfer
	kind     int
	ticket   *ticket        // of repeated
	answer   answer         // of answered
	client   netip.AddrPort // of answered
	err      error          // of filled
}

const (
	added     = iota // a new transfer
	filled           // its chunk was read
	cancelled        // its context has ended
	answered         // a client has sent something to the single port
	repeated         // a client has sent its request once more
	stopped          // no transfer is left, and none will come
)

const (
	maxEvents = 128
	maxMail   = 8192 // beyond it answers are lost
)

func newWorker(v *service, in *inlet) (*worker, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("wait for sockets: %w", err)
	}
	w := &worker{
		service: v, in: in, epoll: epoll,
		one: [8]byte(binary.NativeEndian.AppendUint64(nil, 1)), sockets: make(map[int32]*transfer), clients: make(map[netip.AddrPort]*transfer),
		asking: make(map[*ticket]*transfer), events: make([]unix.EpollEvent, maxEvents),
	}
	if w.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		err = w.watch(w.bell)
	}
	if err != nil {
		w.close()
		return nil, fmt.Errorf("wait for sockets: %w", err)
	}
	return w, nil
}

func (w *worker) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	_ = unix.Close(w.epoll)
	if w.bell > 0 {
		_ = unix.Close(w.bell)
	}
}

func (w *worker) watch(fd int) error {
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// post may be called from anywhere, and does not block.
func (w *worker) post(m mail) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || (m.kind == answered || m.kind == repeated) && len(w.mail) >= maxMail {
		return // nobody is left whom it could be about, or a flood
	}
	w.mail = append(w.mail, m)
	if !w.rung {
		w.rung = true
		_, _ = unix.Write(w.bell, w.one[:]) // a full counter has rung already
	}
}

// run works until it is told that it has stopped.
func (w *worker) run() {
	defer w.close()
	for {
		n, err := unix.EpollWait(w.epoll, w.events, w.patience(time.Now()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(fmt.Sprintf("wait for sockets: %v", err)) // only a wrong argument does that
		}
		now := time.Now()
		for _, e := range w.events[:max(n, 0)] {
			if t := w.sockets[e.Fd]; t != nil {
				w.receive(t, now)
			}
		}
		if w.readMail(now) {
			return
		}
		w.ring(now)
		for _, t := range w.due {
			w.fly(t, now)
		}
		clear(w.due)
		w.due = w.due[:0]
	}
}

// patience is for how long to wait, in milliseconds: until the next timer rings.
func (w *worker) patience(now time.Time) int {
	if len(w.timers) == 0 {
		return -1
	}
	return int(max(w.timers[0].armed.Sub(now)+time.Millisecond-1, 0) / time.Millisecond)
}

// receive reads one answer: where there are more, the kernel says so again.
func (w *worker) receive(t *transfer, now time.Time) {
	if t.answered {
		if n, ok := t.own.receive(w.packet[:]); ok {
			w.take(t, w.packet[:n], now)
		}
		return
	}
	n, ok := t.own.receiveFrom(w.packet[:])
	if !ok {
		return
	}
	w.take(t, w.packet[:n], now)
	// What came in before the socket was connected may be of strangers.
	for t.answered && !t.ended {
		if n, ok = t.own.receiveFrom(w.packet[:]); !ok {
			return
		}
		w.take(t, w.packet[:n], now)
	}
}

func (w *worker) take(t *transfer, p []byte, now time.Time) {
	if a, ok := parseAnswer(p); ok {
		w.answer(t, a, now)
	}
}

func (w *worker) answer(t *transfer, a answer, now time.Time) {
	if t.ended {
		return
	}
	unproven := !t.answered
	due, err := t.sender.take(a, now)
	if unproven && t.answered {
		delete(w.asking, t.job.ticket)
		t.job.ticket.answered()
		if err == nil {
			err = t.line.proven()
		}
	}
	switch {
	case err != nil || t.done():
		w.end(t, err)
	case due:
		w.queue(t)
	case !unproven: // after a pause, or sooner than it was
		w.arm(t, now)
	}
}

func (w *worker) queue(t *transfer) {
	if !t.queued {
		t.queued = true
		w.due = append(w.due, t)
	}
}

// readMail reports whether the worker has stopped.
func (w *worker) readMail(now time.Time) bool {
	w.mu.Lock()
	if !w.rung {
		w.mu.Unlock()
		return false
	}
	var count [8]byte
	_, _ = unix.Read(w.bell, count[:]) // empty when it is rung in this moment
	w.rung = false
	w.mail, w.reading = w.reading[:0], w.mail
	w.mu.Unlock()
	stop := false
	for _, m := range w.reading {
		switch m.kind {
		case added:
			w.add(m.transfer, now)
		case filled:
			w.filled(m.transfer, m.err)
		case cancelled:
			w.end(m.transfer, context.Cause(m.transfer.ctx))
		case answered:
			if t := w.clients[m.client]; t != nil {
				w.answer(t, m.answer, now)
			}
		case repeated:
			if t := w.asking[m.ticket]; t != nil {
				w.askedAgain(t, now)
			}
		case stopped:
			stop = true
		}
	}
	clear(w.reading)
	return stop
}

func (w *worker) add(t *transfer, now time.Time) {
	t.stop = context.AfterFunc(t.ctx, func() { w.post(mail{transfer: t, kind: cancelled}) })
	if t.own != nil {
		w.sockets[int32(t.own.fd)] = t
		if err := w.watch(t.own.fd); err != nil {
			w.end(t, fmt.Errorf("wait for the client: %w", err))
			return
		}
	} else if !w.share(t, now) {
		return
	}
	w.asking[t.job.ticket] = t
	w.queue(t)
}

// askedAgain serves a client that has repeated its request: the first answer, or
// the request before it, was lost. It gets one of the repetitions that a request
// may draw; when they are spent, its next request finds a fresh transfer.
func (w *worker) askedAgain(t *transfer, now time.Time) {
	if t.datagrams == 0 || t.queued || now.Sub(t.sentAt) < minRepeat {
		return // to be answered yet, or a copy that the network has made
	}
	if err := t.silence(now); err != nil {
		w.end(t, err)
		return
	}
	w.queue(t)
}

// share finds the place of a transfer where there is a single port: a client's
// port has one. The same request once more is a late copy while the first one
// goes on; another one, or a late repetition, ends what was before.
func (w *worker) share(t *transfer, now time.Time) bool {
	before := w.clients[t.job.client]
	if before != nil && before.job.ticket.question == t.job.ticket.question && now.Sub(before.sentAt) < maxWait {
		w.end(t, errRepeated)
		return false
	}
	if before != nil {
		w.end(before, errReplaced)
	}
	w.clients[t.job.client] = t
	return true
}

// ring wakes transfers whose timers have rung.
func (w *worker) ring(now time.Time) {
	for len(w.timers) > 0 && !w.timers[0].armed.After(now) {
		t := w.timers[0]
		if !t.queued && !now.Before(t.rings()) {
			if err := t.overdue(now); err != nil {
				w.end(t, err)
				continue
			}
			w.queue(t)
		}
		w.arm(t, now)
	}
}

// arm sets the timer. One that rings too early is left alone: each block would
// move it, and it costs less to look at the clock when it rings.
func (w *worker) arm(t *transfer, now time.Time) {
	at := t.rings()
	if !at.After(now) { // it is due, and flies in this round
		at = now.Add(time.Millisecond)
	}
	switch {
	case t.index < 0:
		t.armed = at
		heap.Push(&w.timers, t)
	case t.armed.After(at) || !t.armed.After(now):
		t.armed = at
		heap.Fix(&w.timers, t.index)
	}
}

// fly sends the next flight, or first has its bytes read.
func (w *worker) fly(t *transfer, now time.Time) {
	t.queued = false
	if t.ended || t.filling {
		return
	}
	first, last := t.sender.flight()
	if first > 0 {
		if off, n := t.span(first, last); !t.source.has(off, n) {
			w.fill(t, off)
			w.arm(t, now)
			return
		}
	}
	t.sender.fly(now)
	w.flight = t.appendFlight(w.flight[:0], &t.source, first, last)
	length := t.terms.block + headerSize
	if first == 0 {
		length = len(w.flight)
	}
	t.failed = t.line.send(w.flight, length)
	w.arm(t, now)
}

func (w *worker) fill(t *transfer, off int64) {
	t.filling = true
	go func() { w.post(mail{transfer: t, kind: filled, err: t.source.fill(off)}) }()
}

func (w *worker) filled(t *transfer, err error) {
	t.filling = false
	switch {
	case t.ended:
		w.leave(t, t.reason)
	case err != nil:
		w.end(t, err)
	default:
		w.queue(t)
	}
}

// end is called when it is clear how the transfer ends.
func (w *worker) end(t *transfer, err error) {
	if t.ended {
		return
	}
	t.ended = true
	delete(w.asking, t.job.ticket)
	if t.own == nil {
		if w.clients[t.job.client] == t {
			delete(w.clients, t.job.client)
		}
	} else {
		delete(w.sockets, int32(t.own.fd))
	}
	if t.index >= 0 {
		heap.Remove(&w.timers, t.index)
	}
	err = t.farewell(err)
	t.line.close()
	if t.filling { // the chunk is being written
		t.reason = err
		return
	}
	w.leave(t, err)
}

// leave gives back what the transfer had, and tells who wants to know. That may
// take a while, and is no work for the worker.
func (w *worker) leave(t *transfer, err error) {
	t.stop()
	t.source.close()
	x, v := t.report(err), w.service
	go func() {
		defer v.running.Done()
		v.finish(t.ctx, t.job, x, t.unanswered())
	}()
}

// timers is a heap (container/heap), the next one to ring first.
type timers []*transfer

func (h timers) Len() int           { return len(h) }
func (h timers) Less(i, j int) bool { return h[i].armed.Before(h[j].armed) }

func (h timers) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is that of [heap.Interface].
func (h *timers) Push(x any) {
	t := x.(*transfer)
	t.index = len(*h)
	*h = append(*h, t)
}

// Pop is that of [heap.Interface].
func (h *timers) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	t.index = -1
	return t
}
