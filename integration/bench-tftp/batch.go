package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	batch = 256
	room  = 512 // bytes of a datagram that are copied; the rest only counts
	queue = 64 << 20
	// nap is how long the generator sleeps when nothing has come. It never waits
	// on its socket: waking it would be the server's work, which it is not where
	// clients are on a network.
	nap = 20 * time.Microsecond
)

// message is a struct mmsghdr (recvmmsg(2)).
type message struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

// socket sends and receives many datagrams at once, each with the address of
// ours that it is from or for. It is not known to Go's poller.
type socket struct {
	fd      int
	in, out messages
	queued  int
}

// messages is the memory of a batch.
type messages struct {
	headers []message
	vectors []unix.Iovec
	names   []unix.RawSockaddrInet4
	control [][32]byte // a struct in_pktinfo
	data    [][room]byte
}

func newMessages() messages {
	m := messages{
		headers: make([]message, batch), vectors: make([]unix.Iovec, batch), names: make([]unix.RawSockaddrInet4, batch),
		control: make([][32]byte, batch), data: make([][room]byte, batch),
	}
	for i := range m.headers {
		h := &m.headers[i].header
		m.vectors[i].Base = &m.data[i][0]
		m.vectors[i].SetLen(room)
		h.Iov = &m.vectors[i]
		h.SetIovlen(1)
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&m.names[i])), unix.SizeofSockaddrInet4
		h.Control = &m.control[i][0]
		h.SetControllen(len(m.control[i]))
	}
	return m
}

func newSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	for _, err := range []error{
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queue),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1),
		unix.Bind(fd, &unix.SockaddrInet4{}),
	} {
		if err != nil {
			return nil, err
		}
	}
	return &socket{fd: fd, in: newMessages(), out: newMessages()}, nil
}

// receive returns how many datagrams have come; 0 where there are none.
func (s *socket) receive() (int, error) {
	for i := range s.in.headers {
		s.in.headers[i].header.SetControllen(len(s.in.control[i]))
	}
	n, err := mmsg(unix.SYS_RECVMMSG, s.fd, s.in.headers, unix.MSG_TRUNC) // the length is the whole one
	if errors.Is(err, unix.EAGAIN) {
		time.Sleep(nap)
		return 0, nil
	}
	return n, err
}

// datagram is one of those that were received: its beginning, its length, the
// port it is from and the address it is for.
func (s *socket) datagram(i int) (p []byte, length int, from uint16, to [4]byte) {
	length = int(s.in.headers[i].length)
	port := (*[2]byte)(unsafe.Pointer(&s.in.names[i].Port))
	return s.in.data[i][:min(length, room)], length, binary.BigEndian.Uint16(port[:]), [4]byte(s.in.control[i][24:28])
}

// send queues a datagram.
func (s *socket) send(p []byte, from [4]byte, to *net.UDPAddr, port uint16) error {
	if s.queued == batch {
		if err := s.flush(); err != nil {
			return err
		}
	}
	i := s.queued
	s.out.vectors[i].SetLen(copy(s.out.data[i][:], p))
	s.out.names[i] = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: [4]byte(to.IP.To4())}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&s.out.names[i].Port))[:], port)
	control := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from})
	s.out.headers[i].header.SetControllen(copy(s.out.control[i][:], control))
	s.queued++
	return nil
}

func (s *socket) flush() error {
	for rest := s.out.headers[:s.queued]; len(rest) > 0; {
		n, err := mmsg(unix.SYS_SENDMMSG, s.fd, rest, 0)
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	s.queued = 0
	return nil
}

func mmsg(call uintptr, fd int, m []message, flags uintptr) (int, error) {
	for {
		n, _, errno := unix.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), flags, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return 0, fmt.Errorf("move a batch of datagrams: %w", errno)
		default:
			return int(n), nil
		}
	}
}
