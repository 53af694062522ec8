package main

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"time"
)

// Opcodes of RFC 1350 and RFC 2347.
const (
	opRRQ   = 1
	opDATA  = 3
	opACK   = 4
	opERROR = 5
	opOACK  = 6
)

// client is one of a fleet.
type client struct {
	fleet   *fleet
	address [4]byte
	request []byte

	peer     uint16 // port of the transfer; 0 until the server has answered
	got      int64  // blocks
	bytes    int64
	inWindow int
	window   int // as agreed
	tries    int
	heard    time.Time
	running  bool
	holds    bool
}

// firstClient is 127.1.0.0.
const firstClient = 127<<24 | 1<<16

func addressOf(i int) [4]byte {
	return [4]byte(binary.BigEndian.AppendUint32(nil, uint32(firstClient+i)))
}

func indexOf(a [4]byte) int { return int(binary.BigEndian.Uint32(a[:])) - firstClient }

func newClient(f *fleet, i int) client {
	request := append([]byte{0, opRRQ}, f.job.File+"\x00octet\x00blksize\x00"+strconv.Itoa(f.job.Block)+"\x00"...)
	if f.job.Window > 1 {
		request = append(request, "windowsize\x00"+strconv.Itoa(f.job.Window)+"\x00"...)
	}
	if f.job.Hold { // so that the server is as patient as the clients
		request = append(request, "timeout\x0030\x00"...)
	}
	return client{fleet: f, address: addressOf(i), request: request}
}

func (c *client) start(now time.Time) {
	c.peer, c.got, c.bytes, c.inWindow, c.window, c.tries, c.heard, c.running = 0, 0, 0, 0, 1, 0, now, true
	c.send(c.request, uint16(c.fleet.server.Port))
}

func (c *client) send(p []byte, port uint16) {
	if err := c.fleet.send(p, c.address, c.fleet.server, port); err != nil {
		c.fleet.err = err
	}
}

func (c *client) acknowledge() {
	c.inWindow = 0
	c.send([]byte{0, opACK, byte(c.got >> 8), byte(c.got)}, c.peer)
}

// take reads a datagram of the given length, of which p is the beginning.
func (c *client) take(p []byte, length int, from uint16, now time.Time) {
	if !c.running || len(p) < 4 || c.peer != 0 && c.peer != from {
		return // the end of a transfer before this one, or a second answer
	}
	switch op := binary.BigEndian.Uint16(p); {
	case op == opERROR:
		c.fail(fmt.Sprintf("error %d: %s", p[3], p[4:]))
	case op == opOACK && c.got == 0:
		if c.peer == 0 {
			c.peer = from
			c.window = window(p[2:])
		}
		c.heard, c.tries = now, 0
		c.acknowledge()
	case op == opDATA && c.peer != 0:
		c.heard, c.tries = now, 0
		c.data(binary.BigEndian.Uint16(p[2:]), length-4, now)
	}
}

func (c *client) data(block uint16, n int, now time.Time) {
	if block != uint16(c.got+1) {
		if c.inWindow > 0 { // a hole
			c.acknowledge()
		}
		return
	}
	c.got++
	c.bytes += int64(n)
	c.inWindow++
	last := n < c.fleet.job.Block
	switch {
	case c.fleet.job.Hold:
		c.holds = true
		c.fleet.held++
		if c.fleet.held == c.fleet.active {
			c.fleet.release()
		}
		return
	case last || c.inWindow == c.window:
		c.acknowledge()
	}
	if last {
		c.finish(now)
	}
}

func (c *client) finish(now time.Time) {
	t := &c.fleet.tally
	if c.bytes != c.fleet.job.Size {
		c.fail(fmt.Sprintf("%d bytes, want %d", c.bytes, c.fleet.job.Size))
		return
	}
	t.Transfers++
	t.Bytes += c.bytes
	if c.fleet.job.For > 0 && now.Before(c.fleet.until) {
		c.start(now)
		return
	}
	c.running = false
	c.fleet.active--
}

func (c *client) fail(reason string) {
	c.fleet.tally.Failed++
	if c.fleet.tally.Error == "" {
		c.fleet.tally.Error = reason
	}
	c.running = false
	c.fleet.active--
	if c.fleet.job.Hold && c.fleet.active > 0 && c.fleet.held == c.fleet.active {
		c.fleet.release()
	}
}

// check repeats itself to a server that is silent.
func (c *client) check(now time.Time) {
	if !c.running || c.fleet.job.Hold && c.holds || now.Sub(c.heard) < patience {
		return
	}
	c.tries++
	if c.tries > maxTries {
		c.fail(fmt.Sprintf("silence after block %d", c.got))
		return
	}
	c.heard = now
	c.fleet.tally.Repeats++
	if c.peer == 0 {
		c.send(c.request, uint16(c.fleet.server.Port))
		return
	}
	c.acknowledge()
}

// window is the windowsize of an OACK's options; 1 where there is none.
func window(options []byte) int {
	name := []byte("windowsize\x00")
	for i := 0; i+len(name) < len(options); i++ {
		if string(options[i:i+len(name)]) == string(name) {
			end := i + len(name)
			for end < len(options) && options[end] != 0 {
				end++
			}
			n, err := strconv.Atoi(string(options[i+len(name) : end]))
			if err == nil {
				return n
			}
		}
	}
	return 1
}
