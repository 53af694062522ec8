package tftp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func outletTo(t *testing.T, client netip.AddrPort) *outlet {
	o, err := newOutlet(netip.MustParseAddr("127.0.0.1"), client, func(netip.Addr) bool { return true })
	require.NoError(t, err)
	t.Cleanup(o.close)
	return o
}

func portOf(conn *net.UDPConn) netip.AddrPort {
	p := conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), p)
}

// TestOutletDeadlines: the socket's deadline is moved rarely, and still each read
// ends at its own.
func TestOutletDeadlines(t *testing.T) {
	c := dial(t, "", netip.AddrPort{})
	o := outletTo(t, portOf(c.conn))
	recv := func(wait time.Duration) (time.Duration, error) {
		began := time.Now()
		_, err := o.Recv(t.Context(), make([]byte, maxAnswer), began.Add(wait))
		return time.Since(began), err
	}
	c.send(ackPacket(1), portOf(o.conn))
	_, err := recv(20 * time.Second)
	require.NoError(t, err)
	took, err := recv(30 * time.Millisecond) // earlier than the socket's
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Less(t, took, 10*time.Second)

	c.send(ackPacket(1), portOf(o.conn))
	_, err = recv(20 * time.Millisecond)
	require.NoError(t, err)
	took, err = recv(100 * time.Millisecond) // later than the socket's
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.GreaterOrEqual(t, took, 100*time.Millisecond)
}

func TestOutletInterrupt(t *testing.T) {
	c := dial(t, "", netip.AddrPort{})
	o := outletTo(t, portOf(c.conn))
	ctx, cancel := context.WithCancelCause(t.Context())
	defer context.AfterFunc(ctx, o.interrupt)()
	failed := make(chan error)
	go func() {
		_, err := o.Recv(ctx, make([]byte, maxAnswer), time.Now().Add(time.Hour))
		failed <- err
	}()
	cancel(errEvicted)
	require.ErrorIs(t, <-failed, errEvicted)
}

func TestFarewell(t *testing.T) {
	tests := map[string]struct {
		err  error
		want string // text of an ERROR
	}{
		"done":         {nil, ""},
		"client ended": {&clientError{code: 8}, ""},
		"evicted":      {errEvicted, ""},
		"stopping":     {errStopping, "server is stopping"},
		"read failed":  {errors.New("/srv/secret: i/o error"), "internal error"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := dial(t, "", netip.AddrPort{})
			o := outletTo(t, portOf(c.conn))
			require.Equal(t, tt.err, o.farewell(tt.err))
			o.Send([]byte("end"))
			got := string(c.next())
			if tt.want != "" {
				require.Equal(t, "\x00\x05\x00\x00"+tt.want+"\x00", got)
				got = string(c.next())
			}
			require.Equal(t, "end", got)
		})
	}
	o := outletTo(t, netip.AddrPortFrom(netip.MustParseAddr("::1"), 1)) // cannot be reached from 127.0.0.1
	o.Send([]byte("lost"))
	require.ErrorContains(t, o.farewell(errSilent), "client has stopped answering (last send: ")
}
