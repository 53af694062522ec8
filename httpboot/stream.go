package httpboot

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

// How much goes out at a time. A plain connection is given files by the kernel,
// straight from its cache. For TLS they are read and encrypted piece by piece,
// and the records of several pieces leave in one batch.
const (
	fileChunk = 16 << 20
	piece     = 32 << 10 // two TLS records
)

// body is the ResponseWriter that a file is sent through: in chunks, as fast as
// the client takes them, but not slower than pace allows.
type body struct {
	http.ResponseWriter
	req  *http.Request
	s    *Server
	from *source
	line *line // the machine's, under a cap
	pace pace
	sent int64
	told time.Time // when the deadline was set
	err  error     // why it ended before its end, if the file is not to blame
}

// Write sends what is no file: the answer to a range that cannot be had.
func (b *body) Write(p []byte) (int, error) {
	if b.err = b.renew(); b.err != nil {
		return 0, b.err
	}
	n, err := b.ResponseWriter.Write(p)
	b.sent, b.err = b.sent+int64(n), err
	return n, err
}

// ReadFrom sends a part of the file. http.ServeContent calls it by io.CopyN,
// which names the part's length, once the file stands where the part begins.
func (b *body) ReadFrom(part io.Reader) (n int64, err error) {
	limited, ok := part.(*io.LimitedReader)
	if !ok || limited.R != io.Reader(b.from) {
		return io.Copy(writerOnly{b}, part)
	}
	before := b.sent
	if b.req.TLS == nil && b.from.file != nil {
		err = b.sendFile(limited.N)
	} else {
		err = b.sendPieces(limited.N)
	}
	return b.sent - before, err
}

// sendFile has the kernel send n bytes of the file.
func (b *body) sendFile(n int64) error {
	offset, err := b.from.offset()
	if err != nil {
		return err
	}
	for n > 0 {
		size := b.turn(min(n, fileChunk))
		if b.err != nil {
			return b.err
		}
		r := &fileRange{file: b.from.file, offset: offset, left: size, moved: b.moved}
		sent, err := io.Copy(b.ResponseWriter, r)
		if b.from.err = r.err; err != nil {
			b.err = err
			return err
		}
		if sent == 0 { // shorter than it was when its length was told
			b.from.err = io.ErrUnexpectedEOF
			return b.from.err
		}
		offset, n = offset+sent, n-sent
	}
	return nil
}

// turn waits until the machine may be sent some of n bytes, and returns how many.
// The client is not to blame for the time.
func (b *body) turn(n int64) int64 {
	if b.line != nil {
		n = min(n, b.s.share.turnSize())
		begun := time.Now()
		if b.err = b.s.share.take(b.req.Context(), b.line, n); b.err != nil {
			return 0
		}
		b.pace.held(time.Since(begun))
		b.told = time.Time{}
	}
	b.err = b.renew()
	return n
}

// moved counts what the client has taken and gives it time for more.
func (b *body) moved(n int64) error {
	b.sent += n
	return b.renew()
}

// sendPieces sends n bytes that have to be encrypted, or lie in memory: in
// batches while the client takes those at once, and without where it has to be
// waited for, since thousands of slow clients must not fill the memory (T7).
func (b *body) sendPieces(n int64) error {
	buf := b.s.buffers.piece()
	defer b.s.buffers.freePiece(buf)
	prompt := int64(0) // bytes in a row
	for n > 0 {
		size := min(n, piece)
		if prompt >= promptFor && b.req.TLS != nil {
			size = min(n, batch)
		}
		if size = b.turn(size); b.err != nil {
			return b.err
		}
		begun := time.Now()
		if err := b.sendBatch(buf, size); err != nil {
			return err
		}
		n -= size
		if prompt += size; time.Since(begun) > promptPiece*time.Duration(1+size/piece) {
			prompt = 0
		}
	}
	return nil
}

func (b *body) sendBatch(buf []byte, n int64) error {
	c := connOf(b.req)
	if n > piece {
		c.gather(&b.s.buffers)
	}
	var err error
	for sent := int64(0); sent < n && err == nil; sent += piece {
		err = b.sendPiece(buf[:min(piece, n-sent)])
	}
	if failed := c.scatter(&b.s.buffers); err == nil && failed != nil {
		b.err, err = failed, failed
	}
	if err == nil {
		b.sent += n
	}
	return err
}

func (b *body) sendPiece(buf []byte) error {
	_, err := io.ReadFull(b.from.ReadSeeker, buf)
	if errors.Is(err, io.EOF) { // as bad as a file that cannot be read
		err = io.ErrUnexpectedEOF
	}
	if b.from.err = err; err != nil {
		return err
	}
	_, b.err = b.ResponseWriter.Write(buf)
	return b.err
}

// renew gives the client time to take more; setting a deadline costs too much
// to do it at every write.
func (b *body) renew() error {
	now := time.Now()
	if now.Sub(b.told) < time.Second {
		return nil
	}
	b.told = now
	return http.NewResponseController(b.ResponseWriter).SetWriteDeadline(b.pace.deadline(now, b.sent))
}

// end is what became of the answer.
func (b *body) end() error {
	switch {
	case b.from.err != nil:
		return unavailable("image-unreadable", b.from.err)
	case b.err == nil:
		return nil
	case cutOffError(connOf(b.req)) != nil:
		return cutOffError(connOf(b.req))
	case errors.Is(b.err, os.ErrDeadlineExceeded):
		return refuse(http.StatusRequestTimeout, "too-slow", b.pace.tooSlow(b.sent, b.err))
	}
	return refuse(http.StatusRequestTimeout, "client-left", b.err)
}

// writerOnly hides ReadFrom.
type writerOnly struct{ io.Writer }
