package storm

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// conn is a keep-alive connection of a machine to one host.
type conn struct {
	tls  *tls.Conn
	in   *bufio.Reader
	stop func() bool
}

// dial connects from a machine's address. Names are not looked up: every one is
// the server's.
func dial(ctx context.Context, from netip.Addr, server netip.AddrPort, config *tls.Config) (*conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	raw, err := d.DialContext(ctx, "tcp", server.String())
	if err != nil {
		return nil, err
	}
	c := &conn{tls: tls.Client(raw, config)}
	c.in = bufio.NewReader(c.tls)
	if err := c.tls.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("handshake: %w", err), raw.Close())
	}
	c.stop = context.AfterFunc(ctx, func() { _ = raw.Close() }) // whoever reads it tells
	return c, nil
}

func (c *conn) close() {
	c.stop()
	_ = c.tls.Close() // it has served
}

// maxAnswer is more than any script or config of a storm has.
const maxAnswer = 1 << 20

// get asks for something small.
func (c *conn) get(ctx context.Context, method, url, authorization string) ([]byte, error) {
	res, err := c.do(ctx, method, url, authorization)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // it was read to its end, or the connection is of no more use
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err == nil && res.StatusCode != http.StatusOK {
		err = &statusError{res.StatusCode, res.Header.Get("Retry-After"), fmt.Sprintf("status %s: %.80q", res.Status, body)}
	}
	return body, err
}

// statusError is an answer that is not what was asked for.
type statusError struct {
	code  int
	retry string // Retry-After
	text  string
}

func (e *statusError) Error() string { return e.text }

// pause is how long the client is told to wait before it asks again; 0: it is
// not told so.
func (e *statusError) pause() time.Duration {
	n, err := strconv.Atoi(e.retry)
	if e.code != http.StatusServiceUnavailable || err != nil || n < 1 {
		return 0
	}
	return time.Duration(n) * time.Second
}

// buffers are what downloads are read into; a machine without a download holds
// none.
type buffers struct{ pool sync.Pool }

func newBuffers() *buffers {
	return &buffers{sync.Pool{New: func() any { return new([32 << 10]byte) }}}
}

// download takes a file in and checks it.
func (c *conn) download(ctx context.Context, url string, want File, b *buffers) error {
	res, err := c.do(ctx, http.MethodGet, url, "")
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // as above
	if res.StatusCode != http.StatusOK || res.ContentLength != want.Size {
		return fmt.Errorf("status %s, %d bytes announced, want %d", res.Status, res.ContentLength, want.Size)
	}
	sum := sha256.New()
	buf, ok := b.pool.Get().(*[32 << 10]byte)
	if !ok {
		return errors.New("the pool holds something else")
	}
	defer b.pool.Put(buf)
	var size int64
	for {
		n, err := res.Body.Read(buf[:])
		_, _ = sum.Write(buf[:n]) // a hash takes everything
		size += int64(n)
		if errors.Is(err, io.EOF) {
			return want.check(size, [32]byte(sum.Sum(nil)))
		}
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", size, want.Size, err)
		}
	}
}

// do sends a request. The body of the answer is to be read to its end, which
// leaves the connection ready for the next.
func (c *conn) do(ctx context.Context, method, url, authorization string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	if err := req.Write(c.tls); err != nil {
		return nil, err
	}
	return http.ReadResponse(c.in, req)
}
