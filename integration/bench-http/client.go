package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// dial connects to a server; receive limits the kernel's buffer of what has
// arrived, 0: it does not.
func dial(ctx context.Context, to target, from net.IP, receive int) (*net.TCPConn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Control: func(_, _ string, raw syscall.RawConn) error {
		if receive == 0 {
			return nil
		}
		var err error
		return errors.Join(raw.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, receive) // before the window is told
		}), err)
	}}
	c, err := d.DialContext(ctx, "tcp", to.addr)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil // that is what "tcp" gives
}

// encrypt speaks TLS where the target wants it.
func encrypt(ctx context.Context, raw *net.TCPConn, to target) (net.Conn, error) {
	if !to.tls {
		return raw, nil
	}
	c := tls.Client(raw, &tls.Config{
		ServerName:         host,
		InsecureSkipVerify: true, // whether the client verifies is nothing to the server
		MaxVersion:         tls.VersionTLS12,
		CipherSuites:       []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	})
	return c, c.HandshakeContext(ctx)
}

// ask sends a request and reads the head of its answer: length is that of the
// body. What of the body came with the head is in the reader.
func ask(ctx context.Context, c net.Conn, path string) (length int64, rest *bufio.Reader, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+path, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	if err := req.Write(c); err != nil {
		return 0, nil, err
	}
	rest = bufio.NewReader(c)
	answer := textproto.NewReader(rest)
	status, err := answer.ReadLine()
	if err != nil {
		return 0, nil, err
	}
	if !strings.HasPrefix(status, "HTTP/1.1 200 ") {
		return 0, nil, fmt.Errorf("answer %q", status)
	}
	head, err := answer.ReadMIMEHeader()
	if err != nil {
		return 0, nil, err
	}
	length, err = strconv.ParseInt(head.Get("Content-Length"), 10, 64)
	return length, rest, err
}

// download fetches a file once, and returns its length. What is not encrypted
// the kernel throws away without copying it, so that the client costs next to
// nothing.
func download(ctx context.Context, to target, got *atomic.Int64) (err error) {
	raw, err := dial(ctx, to, nil, 0)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	defer func() { _ = raw.Close() }() // all that matters has been read
	c, err := encrypt(ctx, raw, to)
	if err != nil {
		return err
	}
	length, buffered, err := ask(ctx, c, to.path)
	if err != nil {
		return err
	}
	got.Add(int64(buffered.Buffered()))
	left := length - int64(buffered.Buffered())
	if !to.tls {
		return discard(raw, left, got)
	}
	buf := make([]byte, 64<<10)
	for left > 0 {
		n, err := c.Read(buf)
		left -= int64(n)
		got.Add(int64(n))
		if err != nil && left > 0 {
			return errors.Join(err, io.ErrUnexpectedEOF)
		}
	}
	return nil
}

// discard takes bytes from a connection without looking at them (MSG_TRUNC,
// tcp(7)).
func discard(c *net.TCPConn, left int64, got *atomic.Int64) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20) // its length counts, the kernel writes nothing there
	for left > 0 {
		var n int
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			n, _, failed = syscall.Recvfrom(int(fd), buf[:min(int64(len(buf)), left)], syscall.MSG_TRUNC)
			return !errors.Is(failed, syscall.EAGAIN)
		})
		if err != nil || failed != nil {
			return errors.Join(err, failed)
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		left -= int64(n)
		got.Add(int64(n))
	}
	return nil
}

// downloads fetches a file so many times at once.
func downloads(ctx context.Context, to target, at int) (got int64, err error) {
	var total atomic.Int64
	errs := make([]error, at)
	var running sync.WaitGroup
	for i := range at {
		running.Go(func() { errs[i] = download(ctx, to, &total) })
	}
	running.Wait()
	return total.Load(), errors.Join(errs...)
}

// repeated is how many bytes so many fast clients get in a time, each over and
// over again.
func repeated(ctx context.Context, to target, at int, d time.Duration) (got int64, took time.Duration, err error) {
	timed, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var total atomic.Int64
	errs := make([]error, at)
	start := time.Now()
	var running sync.WaitGroup
	for i := range at {
		running.Go(func() {
			for timed.Err() == nil {
				if err := download(timed, to, &total); err != nil && timed.Err() == nil {
					errs[i] = err
					return
				}
			}
		})
	}
	running.Wait()
	return total.Load(), time.Since(start), errors.Join(errs...)
}
