// Package tftp is a read-only TFTP server for firmware: the first bytes a bare
// machine ever reads. It speaks RFC 1350 (octet mode), RFC 2347 (options),
// RFC 2348 (blksize), RFC 2349 (tsize, timeout) and RFC 7440 (windowsize), over
// IPv4 and IPv6.
//
// It is not a file server: it never touches a file system. A [Handler] turns a
// name into bytes; what the name means, and who may read it, is the handler's.
// Nor is it a client.
//
// TFTP has no authentication and its first packet can be forged, so a request
// earns little until its client has answered: one datagram, repeated at most
// twice, out of budgets per network and in all. The client's answer, which has
// to name a port chosen at random, shows that the client exists; only then does
// data flow.
//
// Begin with [Server.Serve]. A request passes gate (may it be answered?),
// request (what is wanted?), options (how?) and sender (the transfer itself).
package tftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// Handler opens the file that a client asks for. The name has lost the quirks
// that firmware adds (leading separators, backslashes, trailing 0xFF) and holds
// valid UTF-8 without control characters; it may still hold "..". The client's
// address is not proven: a request is easily forged.
//
// A file in memory is a [Memory]; any other is read a chunk at a time, by a
// goroutine that lasts as long.
//
// An [fs.ErrNotExist] is told to the client as "file not found", an
// [fs.ErrPermission] as "access violation", a [*Refusal] word by word; of any
// other error the client learns only that there was one.
//
// The context ends when the transfer is no longer wanted; a handler that ignores
// it delays the end of [Server.Serve]. The reader is used by one goroutine, and
// not after OnDone was called.
type Handler func(ctx context.Context, name string, client netip.AddrPort) (*io.SectionReader, error)

// Transfer tells an observer about one request.
type Transfer struct {
	// Name is the file name as the [Handler] sees it, empty if it could not be read.
	Name string
	// MAC is the hardware address of the client where the name holds one, as names
	// do that loaders try on the chance; a claim.
	MAC net.HardwareAddr
	// Client is the address and port the request came from.
	Client netip.AddrPort
	// Size is the length of the file and Bytes what the client has confirmed.
	Size, Bytes int64
	// Duration runs from the arrival of the request to the end of its transfer.
	Duration time.Duration
	// BlockSize, in bytes, and Window, in blocks, are what was agreed; 0 if the
	// request was refused.
	BlockSize, Window int
	// Retransmits counts the datagrams that were sent more than once.
	Retransmits int
	// Err is nil when the client has confirmed the last block.
	Err error
}

var (
	// ErrNoAnswer ends a transfer whose client has never answered: the request
	// was forged, the client has gone, or its network drops our replies.
	ErrNoAnswer = errors.New("client has never answered")
	// ErrSizeProbe ends a transfer whose client asked for the size, read it and
	// hung up. OVMF does so before each download; it is not a failure.
	ErrSizeProbe = errors.New("client wanted the size only")
	// ErrAborted ends a transfer whose client has sent an ERROR.
	ErrAborted = errors.New("client ended the transfer")

	errReplaced = errors.New("client has asked for something else")
	errEvicted  = fmt.Errorf("%w: dropped, too many wait for a first answer", ErrNoAnswer)
	errStalled  = errors.New("client makes no progress")
	errSilent   = errors.New("client has stopped answering")
	errDeadline = errors.New("transfer took too long")
	errStopping = errors.New("server is stopping")
)
