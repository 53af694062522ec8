package tftp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestWindowsAreCutByTheKernel sends windows of all shapes, over both kinds of
// line and both families, from memory and from a file that is read.
func TestWindowsAreCutByTheKernel(t *testing.T) {
	file := content(300_000)
	handler := func(_ context.Context, name string, _ netip.AddrPort) (*io.SectionReader, error) {
		if name == "memory" {
			return io.NewSectionReader(Memory(file), 0, int64(len(file))), nil
		}
		return section(file), nil
	}
	for _, listen := range []string{loopback, "[::1]:0", "0.0.0.0:0", "[::]:0"} {
		for _, single := range []bool{false, true} {
			addr, _ := start(t, &Server{Open: handler, SinglePort: single, DSCP: 46}, listen)
			if addr.Addr().IsUnspecified() {
				addr = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.7"), addr.Port())
			}
			for _, tt := range []struct{ block, window int }{{1468, 1}, {1468, 4}, {1468, 64}, {32, 64}, {512, 7}, {8192, 32}, {65464, 4}, {1000, 64}} {
				for _, name := range []string{"memory", "file"} {
					var b bytes.Buffer
					c := dial(t, "", addr)
					err := c.download(&b, tt.block, tt.window, time.Second, name, "octet", "blksize", strconv.Itoa(tt.block), "windowsize", strconv.Itoa(tt.window))
					require.NoError(t, err, "%s, single %v, %+v, %s", listen, single, tt, name)
					require.Equal(t, sum(file), sum(b.Bytes()), "%s, single %v, %+v, %s", listen, single, tt, name)
					require.Equal(t, single, c.peer == addr, "the port that blocks come from")
				}
			}
		}
	}
}

// TestSinglePortAsksAnew: a client's port has one transfer.
func TestSinglePortAsksAnew(t *testing.T) {
	done := make(chan Transfer, 3)
	addr, _ := start(t, &Server{
		Open:       files(map[string]any{"a": content(2000), "b": content(10)}),
		SinglePort: true, OnDone: func(x Transfer) { done <- x },
	}, loopback)
	c := dial(t, "", addr)
	require.Equal(t, uint16(1), blockOf(c.ask("a", "octet")))
	c.ack(1)
	require.Equal(t, uint16(2), blockOf(c.next()))
	c.send(rrq("a", "octet"), addr) // a late copy
	require.ErrorIs(t, (<-done).Err, errRepeated)
	c.ack(2)
	require.Equal(t, uint16(3), blockOf(c.next()))
	require.Equal(t, 14, len(c.ask("b", "octet")), "another request")
	require.ErrorIs(t, (<-done).Err, errReplaced)
	c.ack(1)
	x := <-done
	require.NoError(t, x.Err)
	require.Equal(t, "b", x.Name)
}

func blockOf(p []byte) uint16 { return uint16(p[2])<<8 | uint16(p[3]) }

// TestAllocatesNothingPerBlock counts what the whole process allocates, the
// client included.
func TestAllocatesNothingPerBlock(t *testing.T) {
	for _, single := range []bool{false, true} {
		addr, _ := start(t, &Server{Open: func(_ context.Context, name string, _ netip.AddrPort) (*io.SectionReader, error) {
			n, err := strconv.Atoi(name)
			return io.NewSectionReader(Memory(make([]byte, n)), 0, int64(n)), err
		}, SinglePort: single}, loopback)
		allocs := func(blocks int) uint64 {
			name := strconv.Itoa(blocks*512 - 1)
			run := func() {
				require.NoError(t, download(t, "", addr, io.Discard, 512, 4, time.Second, name, "octet", "blksize", "512", "windowsize", "4"))
			}
			run()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			run()
			runtime.ReadMemStats(&after)
			return after.Mallocs - before.Mallocs
		}
		few, many := allocs(10), allocs(5000)
		require.Less(t, many, few+2000, "single port %v: %d blocks more, lock-step and windows", single, 4990)
	}
}

// brokenDisk fails like a disk with a bad sector.
type brokenDisk struct {
	good int64
	data []byte
}

func (d brokenDisk) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > d.good {
		return 0, &os.PathError{Op: "read", Path: "/srv/secret", Err: syscall.EIO}
	}
	return copy(p, d.data[off:]), nil
}

// TestDiskErrorEndsTheTransferAlone: the client hears that there was an error and
// not where, the operator hears all, and others go on.
func TestDiskErrorEndsTheTransferAlone(t *testing.T) {
	var log bytes.Buffer
	file := content(200_000)
	done := make(chan Transfer, 2)
	addr, stop := start(t, &Server{
		Open: func(_ context.Context, name string, _ netip.AddrPort) (*io.SectionReader, error) {
			good := int64(len(file))
			if name == "broken" {
				good = 100_000
			}
			return io.NewSectionReader(brokenDisk{good, file}, 0, int64(len(file))), nil
		},
		Log: slog.New(slog.NewTextHandler(&log, nil)), OnDone: func(x Transfer) { done <- x },
	}, loopback)
	err := download(t, "", addr, io.Discard, 1468, 4, time.Second, "broken", "octet", "blksize", "1468", "windowsize", "4")
	require.ErrorContains(t, err, "server: error 0: internal error")
	require.ErrorIs(t, (<-done).Err, syscall.EIO)
	var b bytes.Buffer
	require.NoError(t, download(t, "", addr, &b, 1468, 4, time.Second, "good", "octet", "blksize", "1468", "windowsize", "4"))
	require.Equal(t, sum(file), sum(b.Bytes()))
	<-done
	<-stop()
	require.Contains(t, log.String(), "level=ERROR")
	require.Contains(t, log.String(), "input/output error")
}

// TestT04_FileDescriptorsRunOut: requests that find none are dropped and say what
// to do; the next one after that is served.
func TestT04_FileDescriptorsRunOut(t *testing.T) {
	var log bytes.Buffer
	done := make(chan Transfer, 100)
	addr, stop := start(t, &Server{
		Open: files(map[string]any{"a": content(100_000)}), OnDone: func(x Transfer) { done <- x },
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	}, loopback)
	c := dial(t, "", addr)
	used, err := filepath.Glob("/proc/self/fd/*")
	require.NoError(t, err)
	var limit syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	low := limit
	low.Cur = uint64(len(used) + 8)
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low))
	restore := func() { require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)) }
	defer restore()
	for i := range 40 {
		c.send(rrq("a", "octet", "x", strconv.Itoa(i)), addr)
	}
	for range 10 {
		x := <-done
		require.True(t, errors.Is(x.Err, syscall.EMFILE), "%v", x.Err)
		require.ErrorContains(t, x.Err, "LimitNOFILE")
	}
	restore()
	require.NoError(t, download(t, "", addr, io.Discard, 512, 1, time.Second, "a", "octet"))
	<-stop()
	require.Equal(t, 1, strings.Count(log.String(), "level=ERROR"), "%s", &log)
}

func TestShortageIsToldOnce(t *testing.T) {
	var log bytes.Buffer
	s := shortage{log: slog.New(slog.NewTextHandler(&log, nil))}
	now := time.Unix(1000, 0)
	for i, err := range []error{nil, syscall.EMFILE, nil, syscall.ENFILE, syscall.EACCES, nil} {
		s.observe(t.Context(), err, now.Add(time.Duration(i)*time.Second))
	}
	s.observe(t.Context(), nil, now.Add(dropInterval+3*time.Second))
	s.observe(t.Context(), nil, now.Add(time.Hour))
	s.observe(t.Context(), syscall.EMFILE, now.Add(time.Hour))
	require.Regexp(t, "(?s)^[^\n]*ERROR[^\n]*no room[^\n]*\n[^\n]*INFO[^\n]*room for transfers again[^\n]*\n[^\n]*ERROR[^\n]*\n$", log.String())
}
