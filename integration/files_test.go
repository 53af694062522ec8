package integration

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nestboot/nestboot/integration/rig"
)

// TestT04_FewFileDescriptors lets bootd have 256 and asks for more transfers than
// that: those beyond hear nothing, as firmware asks again, the operator is told
// once, and when the others have ended the same bootd serves again.
func TestT04_FewFileDescriptors(t *testing.T) {
	s := newLoopback(t, rig.Loopback{Image: 3000})
	_, err := s.Nestctl(t.Context(), "artifact", "create", "few", "--serve", "tftp")
	require.NoError(t, err)
	limit := unix.Rlimit{Cur: 256, Max: 256}
	require.NoError(t, unix.Prlimit(s.Proc.Pid(), unix.RLIMIT_NOFILE, &limit, nil))
	const requests = 300
	addr := netip.MustParseAddrPort(s.HTTP)
	type seat struct {
		conn *net.UDPConn
		peer netip.AddrPort
	}
	var taken []seat
	for i := range requests { // of one machine each; 64 are allowed to an address
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, byte(1+i%7), 1)})
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.WriteToUDPAddrPort([]byte("\x00\x01few.efi\x00octet\x00"), addr)
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
		_, peer, err := conn.ReadFromUDPAddrPort(make([]byte, 600))
		if err != nil {
			break // no room
		}
		_, err = conn.WriteToUDPAddrPort([]byte{0, 4, 0, 1}, peer)
		require.NoError(t, err)
		taken = append(taken, seat{conn, peer})
	}
	require.Greater(t, len(taken), 150)
	require.Less(t, len(taken), 256)
	for range 5 { // further ones
		conn, err := net.Dial("udp4", s.HTTP)
		require.NoError(t, err)
		_, err = conn.Write([]byte("\x00\x01few.efi\x00octet\x00"))
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	}
	for _, c := range taken {
		_, err := c.conn.WriteToUDPAddrPort([]byte("\x00\x05\x00\x00enough\x00"), c.peer)
		require.NoError(t, err)
	}
	got := filepath.Join(t.TempDir(), "few.efi")
	require.Eventually(t, func() bool {
		out, err := exec.CommandContext(t.Context(), "curl", "-sS", "--max-time", "5", "--tftp-blksize", "1468", "-o", got, "tftp://"+s.HTTP+"/few.efi").CombinedOutput()
		if err != nil {
			t.Logf("not yet: %s", out)
		}
		return err == nil
	}, 30*time.Second, 100*time.Millisecond)
	log, err := os.ReadFile(filepath.Join(s.Dir, "bootd.log"))
	require.NoError(t, err)
	require.Equal(t, 1, bytes.Count(log, []byte("tftp has no room for further transfers")), "of "+strconv.Itoa(requests-len(taken)))
	require.Contains(t, string(log), "LimitNOFILE")
}
