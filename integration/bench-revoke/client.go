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
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// client is one open connection.
type client struct {
	raw  *net.TCPConn
	tls  *tls.Conn
	in   *bufio.Reader
	to   credential
	last atomic.Pointer[time.Time] // when the last good answer came
}

// perAddress is how many connections a client address makes: bootd allows 256.
const perAddress = 200

// smallBuffer keeps what a download has in the kernel on its way small.
const smallBuffer = 32 << 10

// dial opens the n-th connection of a credential.
func dial(ctx context.Context, addr string, to credential, n int) (*client, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+n/perAddress))}}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	tcp, ok := raw.(*net.TCPConn)
	if !ok {
		return nil, errors.New("dial: no TCP connection")
	}
	if err := tcp.SetReadBuffer(smallBuffer); err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	config := &tls.Config{ServerName: to.host, InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12} // who answers is not in question here
	if to.cert != nil {
		config.Certificates = []tls.Certificate{*to.cert}
	}
	c := &client{raw: tcp, tls: tls.Client(tcp, config), to: to}
	c.in = bufio.NewReader(c.tls)
	if err := c.tls.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	return c, nil
}

// ask sends a request and returns the status of the answer. Its body, of which
// a HEAD has none, is still to be read from c.in.
func (c *client) ask(ctx context.Context, method string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+c.to.host+c.to.path, http.NoBody)
	if err != nil {
		return 0, err
	}
	if err := req.Write(c.tls); err != nil {
		return 0, err
	}
	head := textproto.NewReader(c.in)
	line, err := head.ReadLine()
	if err != nil {
		return 0, err
	}
	if _, err := head.ReadMIMEHeader(); err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	return strconv.Atoi(code)
}

// good asks without wanting the body, and notes when it was answered well.
func (c *client) good(ctx context.Context) error {
	if err := c.ok(ctx, http.MethodHead); err != nil {
		return err
	}
	now := time.Now()
	c.last.Store(&now)
	return nil
}

// download begins one and reads a little of it.
func (c *client) download(ctx context.Context) error {
	if err := c.ok(ctx, http.MethodGet); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, c.in, smallBuffer)
	return err
}

func (c *client) ok(ctx context.Context, method string) error {
	status, err := c.ask(ctx, method)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d", status)
	}
	return err
}

// asking asks four times a second until it is refused or ctx ends.
func (c *client) asking(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for c.good(ctx) == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// open reports whether the kernel still holds the connection open. It looks at
// the connection's state and not at what can be read: behind a download that
// was cut off there is still a rest in the buffers.
func (c *client) open() (bool, error) {
	control, err := c.raw.SyscallConn()
	if err != nil {
		return false, err
	}
	var info *unix.TCPInfo
	var failed error
	if err := control.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); err != nil {
		return false, err
	}
	if failed != nil {
		return false, failed
	}
	return info.State == unix.BPF_TCP_ESTABLISHED, nil // the only name that x/sys has for it
}
