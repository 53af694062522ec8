package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// client is a connection that is kept alive. It does no more for an answer than
// it must: what it spends the server does not have.
type client struct {
	tls  *tls.Conn
	in   *bufio.Reader
	out  []byte
	body []byte
}

// source is where all connections come from: a grant is bound to an address.
var source = net.TCPAddr{IP: net.IPv4(127, 0, 1, 1)}

// dial opens n connections.
func dial(ctx context.Context, addr string, config *tls.Config, n int) (clients []*client, err error) {
	d := net.Dialer{LocalAddr: &source}
	for range n {
		raw, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return clients, err
		}
		c := &client{tls: tls.Client(raw, config), body: make([]byte, 64<<10)}
		clients = append(clients, c)
		c.in = bufio.NewReaderSize(c.tls, 16<<10)
		if err := c.tls.HandshakeContext(ctx); err != nil {
			return clients, err
		}
	}
	return clients, nil
}

// patience is for one answer.
const patience = time.Minute

// ask sends what request appends to an empty slice, and returns the body of the
// answer, which is good until the next one.
func (c *client) ask(request func([]byte) []byte) ([]byte, error) {
	if err := c.tls.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	c.out = request(c.out[:0])
	if _, err := c.tls.Write(c.out); err != nil {
		return nil, err
	}
	status, length := 0, -1
	for first := true; ; first = false {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if first {
			if len(line) < len("HTTP/1.1 200") {
				return nil, fmt.Errorf("answer begins with %.40q", line)
			}
			status, _ = strconv.Atoi(string(line[9:12])) // 0 is no good status either
			continue
		}
		if len(line) == 0 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return nil, err
			}
		}
	}
	if length < 0 || length > len(c.body) {
		return nil, fmt.Errorf("Content-Length of an answer is %d", length)
	}
	body := c.body[:length]
	if _, err := io.ReadFull(c.in, body); err != nil {
		return nil, err
	}
	if status != 200 {
		return nil, fmt.Errorf("status %d: %.60q", status, body)
	}
	return body, nil
}

// job is one request and what to do with its answer.
type job struct {
	request func(out []byte, i int) []byte
	answer  func(i int, body []byte) error
}

// all does the jobs 0 to n-1, each connection the next that nobody has begun,
// and returns how many failed, with the first error.
func all(clients []*client, n int, j job) (failed int, first error) {
	var next, bad atomic.Int64
	var once sync.Once
	var running sync.WaitGroup
	for _, c := range clients {
		running.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				body, err := c.ask(func(out []byte) []byte { return j.request(out, i) })
				if err == nil {
					err = j.answer(i, body)
				}
				if err != nil {
					bad.Add(1)
					once.Do(func() { first = fmt.Errorf("request %d: %w", i, err) })
				}
				var lost net.Error
				if errors.As(err, &lost) || errors.Is(err, io.EOF) {
					return // the connection is of no more use
				}
			}
		})
	}
	running.Wait()
	if done := int(next.Load()); done < n { // every connection was lost
		bad.Add(int64(n - done))
	}
	return int(bad.Load()), first
}
