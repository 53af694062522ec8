package httpboot

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// source is a file that is sent. It remembers why it could not be read.
type source struct {
	io.ReadSeeker
	file *os.File // where its bytes lie, from base on; nil when they are in memory
	base int64
	err  error
}

func newSource(content io.ReadSeeker) *source {
	s := &source{ReadSeeker: content}
	if part, ok := content.(*io.SectionReader); ok {
		whole, base, _ := part.Outer()
		if file, ok := whole.(*os.File); ok {
			s.file, s.base = file, base
		}
	}
	return s
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.ReadSeeker.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// probe reads the first byte.
func (s *source) probe() error {
	_, err := io.ReadFull(s.ReadSeeker, make([]byte, 1))
	if errors.Is(err, io.EOF) {
		return nil // it is empty
	}
	if err != nil {
		return err
	}
	_, err = s.Seek(0, io.SeekStart)
	return err
}

// offset is where in the file its next byte lies.
func (s *source) offset() (int64, error) {
	at, err := s.Seek(0, io.SeekCurrent)
	return s.base + at, err
}

// fileRange is a part of a file for a plain connection to send. Several may
// read the same file: none moves its offset.
type fileRange struct {
	file   *os.File
	offset int64
	left   int64
	moved  func(int64) error // called with what the connection has taken, before more is sent
	err    error             // why the file could not be read
}

// Read is for what http.ResponseWriter puts behind the head of an answer.
func (r *fileRange) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.file.ReadAt(b[:min(int64(len(b)), r.left)], r.offset)
	r.offset, r.left = r.offset+int64(n), r.left-int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	if n == 0 {
		return 0, err
	}
	return n, r.moved(int64(n))
}

// sendTo has the kernel copy the range to a connection (sendfile(2)). A file
// system that cannot is read.
func (r *fileRange) sendTo(c *net.TCPConn) (sent int64, err error) {
	to, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	from, err := r.file.SyscallConn()
	if err != nil {
		r.err = err
		return 0, err
	}
	cork(to, 1)
	defer cork(to, 0)
	keepsOpen := from.Control(func(fd uintptr) { sent, err = r.sendFrom(int(fd), to) })
	if keepsOpen != nil {
		r.err = keepsOpen
		return 0, keepsOpen
	}
	if sent == 0 && (errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS)) {
		r.err = nil
		return io.Copy(writerOnly{c}, r)
	}
	return sent, err
}

func (r *fileRange) sendFrom(file int, to syscall.RawConn) (sent int64, err error) {
	for r.left > 0 {
		var n int
		var failed error
		err := to.Write(func(socket uintptr) bool {
			for {
				n, failed = syscall.Sendfile(int(socket), file, &r.offset, int(min(r.left, sendAtOnce)))
				if !errors.Is(failed, syscall.EINTR) {
					return !errors.Is(failed, syscall.EAGAIN)
				}
			}
		})
		if err != nil { // closed, or out of time
			return sent, err
		}
		if failed != nil {
			return sent, r.failed(failed)
		}
		if n == 0 {
			r.err = io.ErrUnexpectedEOF // shorter than it was when its length was told
			return sent, r.err
		}
		r.left, sent = r.left-int64(n), sent+int64(n)
		if err := r.moved(int64(n)); err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// sendAtOnce is for one system call, which other goroutines may have to wait for.
const sendAtOnce = 2 << 20

// failed tells the connection's faults from the file's.
func (r *fileRange) failed(err error) error {
	err = os.NewSyscallError("sendfile", err)
	for _, remote := range []syscall.Errno{syscall.EPIPE, syscall.ECONNRESET, syscall.ETIMEDOUT, syscall.ENOTCONN, syscall.EHOSTUNREACH, syscall.ENETUNREACH} {
		if errors.Is(err, remote) {
			return err
		}
	}
	r.err = fmt.Errorf("%s: %w", r.file.Name(), err)
	return r.err
}

// cork has a connection send full segments only until it is off again (TCP_CORK,
// tcp(7)): a seventh less processor time, on loopback.
func cork(c syscall.RawConn, on int) {
	_ = c.Control(func(fd uintptr) { // without it there are more packets
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_CORK, on)
	})
}
