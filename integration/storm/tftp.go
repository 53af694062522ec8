package storm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"
)

// Packets of RFC 1350 and RFC 2347.
const (
	opRead  = 1
	opData  = 3
	opAck   = 4
	opError = 5
	opOACK  = 6

	codeOption = 8 // RFC 2347: a transfer that ends over its options
)

// What OVMF asks for, and how patient it is (NetworkPkg/UefiPxeBcDxe).
const (
	blockSize   = 1468
	windowSize  = 4
	tftpTimeout = 4 * time.Second
	tftpTries   = 6
)

// tftpClient is a file that a machine fetches: one socket, and the server's
// port once it is known.
type tftpClient struct {
	conn   *net.UDPConn
	server netip.AddrPort
	peer   netip.AddrPort // zero until the server has answered
	last   []byte         // what is sent again when nothing comes
	buf    []byte
}

// fetch does as OVMF does: it asks for the size, breaks that off, and asks
// again for the file.
func fetch(ctx context.Context, from netip.Addr, server netip.AddrPort, name string, want File) error {
	if err := probe(ctx, from, server, name, want.Size); err != nil {
		return fmt.Errorf("size probe: %w", err)
	}
	c, err := dialTFTP(from, server)
	if err != nil {
		return err
	}
	defer c.close()
	options, err := c.ask(ctx, name, "blksize", strconv.Itoa(blockSize), "windowsize", strconv.Itoa(windowSize))
	if err != nil {
		return err
	}
	if options["blksize"] != blockSize || options["windowsize"] != windowSize {
		return fmt.Errorf("the server offers %v, not what was asked for", options)
	}
	if err := c.send(ack(0)); err != nil {
		return err
	}
	return c.receive(ctx, want)
}

func probe(ctx context.Context, from netip.Addr, server netip.AddrPort, name string, size int64) error {
	c, err := dialTFTP(from, server)
	if err != nil {
		return err
	}
	defer c.close()
	options, err := c.ask(ctx, name, "tsize", "0", "blksize", strconv.Itoa(blockSize), "windowsize", strconv.Itoa(windowSize))
	if err != nil {
		return err
	}
	if options["tsize"] != size {
		return fmt.Errorf("the file has %d bytes, the server says %d", size, options["tsize"])
	}
	return c.send(append(header(opError, codeOption), "User aborted the transfer\x00"...))
}

func dialTFTP(from netip.Addr, server netip.AddrPort) (*tftpClient, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)))
	if err != nil {
		return nil, err
	}
	return &tftpClient{conn: conn, server: server, buf: make([]byte, 4+blockSize+1)}, nil
}

func (c *tftpClient) close() { _ = c.conn.Close() } // it has served

// ask sends a read request and returns the options of the answer.
func (c *tftpClient) ask(ctx context.Context, name string, options ...string) (map[string]int64, error) {
	var packet bytes.Buffer
	packet.Write([]byte{0, opRead})
	for _, s := range append([]string{name, "octet"}, options...) {
		packet.WriteString(s + "\x00")
	}
	if err := c.send(packet.Bytes()); err != nil {
		return nil, err
	}
	answer, err := c.next(ctx)
	if err != nil {
		return nil, err
	}
	if binary.BigEndian.Uint16(answer) != opOACK {
		return nil, fmt.Errorf("the server ignores options: packet of type %d", binary.BigEndian.Uint16(answer))
	}
	fields := bytes.Split(bytes.TrimSuffix(answer[2:], []byte{0}), []byte{0})
	if len(fields)%2 != 0 {
		return nil, fmt.Errorf("options %q come without a value", fields)
	}
	agreed := map[string]int64{}
	for i := 0; i < len(fields); i += 2 {
		if agreed[string(fields[i])], err = strconv.ParseInt(string(fields[i+1]), 10, 64); err != nil {
			return nil, fmt.Errorf("option %s: %w", fields[i], err)
		}
	}
	return agreed, nil
}

// receive takes the blocks in, window by window (RFC 7440), and checks what
// they make.
func (c *tftpClient) receive(ctx context.Context, want File) error {
	sum := sha256.New()
	var size int64
	for block, inWindow, told := uint16(1), 0, false; ; {
		packet, err := c.next(ctx)
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", size, want.Size, err)
		}
		if binary.BigEndian.Uint16(packet) != opData || len(packet) > 4+blockSize {
			continue // an OACK that was sent again
		}
		if n := binary.BigEndian.Uint16(packet[2:]); n != block {
			// A gap, or blocks that we have: say once where we stand.
			if !told {
				told, inWindow = true, 0
				if err := c.send(ack(block - 1)); err != nil {
					return err
				}
			}
			continue
		}
		told = false
		_, _ = sum.Write(packet[4:]) // a hash takes everything
		size += int64(len(packet) - 4)
		end := len(packet) < 4+blockSize
		if inWindow++; inWindow == windowSize || end {
			inWindow = 0
			if err := c.send(ack(block)); err != nil {
				return err
			}
		}
		if end {
			return want.check(size, [32]byte(sum.Sum(nil)))
		}
		block++
	}
}

func (c *tftpClient) send(packet []byte) error {
	c.last = packet
	to := c.peer
	if !to.IsValid() {
		to = c.server
	}
	_, err := c.conn.WriteToUDPAddrPort(packet, to)
	return err
}

// next waits for a packet of the server, and sends the last one again when none
// comes. It fails with the server's error.
func (c *tftpClient) next(ctx context.Context) ([]byte, error) {
	for range tftpTries {
		packet, err := c.read(ctx)
		if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
			if err := c.send(c.last); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if binary.BigEndian.Uint16(packet) == opError {
			return nil, fmt.Errorf("the server says: error %d: %q", binary.BigEndian.Uint16(packet[2:]), packet[4:])
		}
		return packet, nil
	}
	return nil, fmt.Errorf("no answer to %d packets", tftpTries)
}

func (c *tftpClient) read(ctx context.Context) ([]byte, error) {
	deadline := time.Now().Add(tftpTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := c.conn.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	for {
		n, from, err := c.conn.ReadFromUDPAddrPort(c.buf)
		if err != nil {
			return nil, err
		}
		if n < 4 || from.Addr() != c.server.Addr() || c.peer.IsValid() && from != c.peer {
			continue // a stranger, or the server's answer to a request that was sent twice
		}
		c.peer = from
		return c.buf[:n], nil
	}
}

func header(op, value uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, op), value)
}

func ack(block uint16) []byte { return header(opAck, block) }

// check compares a download with what it was to be.
func (want File) check(size int64, sum [32]byte) error {
	if size != want.Size || sum != want.SHA256 {
		return fmt.Errorf("%d bytes with SHA-256 %x came, want %d with %x", size, sum, want.Size, want.SHA256)
	}
	return nil
}
