package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/tftp"
)

func TestListenTFTP(t *testing.T) {
	free := func() string {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(t, err)
		defer c.Close()
		return c.LocalAddr().String()
	}
	addr := free()
	conns, err := listenTFTP(t.Context(), addr, TFTP{Sockets: 3, Interfaces: []string{"lo"}})
	require.NoError(t, err)
	require.Len(t, conns, 3)
	_, err = listenTFTP(t.Context(), addr, TFTP{})
	require.ErrorContains(t, err, "is taken by another program", "although it would share")
	for _, c := range conns {
		require.NoError(t, c.Close())
	}
	_, err = listenTFTP(t.Context(), free(), TFTP{Interfaces: []string{"nowhere0"}})
	require.ErrorContains(t, err, `tftp.interfaces: there is no interface "nowhere0"`)
}

// A host may run another server on another of its interfaces.
func TestTFTPSharesAPortByInterface(t *testing.T) {
	all, err := net.Interfaces()
	require.NoError(t, err)
	other := slices.IndexFunc(all, func(i net.Interface) bool { return i.Flags&net.FlagLoopback == 0 })
	if other < 0 {
		t.Skip("there is only one interface")
	}
	theirs, err := listenOn(t.Context(), "0.0.0.0:0", all[other].Name, false)
	require.NoError(t, err)
	defer theirs.Close()
	addr := theirs.LocalAddr().String()
	conns, err := listenTFTP(t.Context(), addr, TFTP{Sockets: 2, Interfaces: []string{"lo"}})
	require.NoError(t, err)
	for _, c := range conns {
		require.NoError(t, c.Close())
	}
	_, err = listenTFTP(t.Context(), addr, TFTP{Interfaces: []string{"lo", all[other].Name}})
	require.ErrorContains(t, err, "is taken by another program")
}

func TestTFTPMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	m := newTFTPMetrics(r)
	for _, err := range []error{
		nil, fmt.Errorf("x: %w", tftp.ErrSizeProbe), tftp.ErrNoAnswer, tftp.ErrAborted, fmt.Errorf("x: %w", fs.ErrNotExist),
		fs.ErrPermission, &tftp.Refusal{}, errors.New("input/output error"),
	} {
		m.active.Inc()
		m.observe(tftp.Transfer{Err: err, Bytes: 10, Retransmits: 2, Window: 5, Duration: time.Second})
	}
	require.Equal(t, map[string]float64{
		"nestboot_tftp_active": 0, "nestboot_tftp_bytes_total": 80, "nestboot_tftp_retransmits_total": 16, "nestboot_tftp_seconds": 1,
		"nestboot_tftp_transfers_total done": 1, "nestboot_tftp_transfers_total size-probe": 1, "nestboot_tftp_transfers_total no-answer": 1,
		"nestboot_tftp_transfers_total aborted": 1, "nestboot_tftp_transfers_total not-found": 1, "nestboot_tftp_transfers_total refused": 2,
		"nestboot_tftp_transfers_total failed": 1, "nestboot_tftp_window_total 8": 1,
	}, gather(t, r))
}

// gather lists values by name and label; of histograms the number of samples.
func gather(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	require.NoError(t, err)
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return values
}

// TestTFTPEventNamesTheMachine: a boot that fails this early is told by its MAC.
func TestTFTPEventNamesTheMachine(t *testing.T) {
	e := tftpEvent(boot.StageTFTPRequest, tftp.Transfer{
		Name: "rack1/pxelinux.cfg/01-52-54-00-12-ab-cd", MAC: net.HardwareAddr{0x52, 0x54, 0, 0x12, 0xab, 0xcd},
		Client: netip.MustParseAddrPort("[::ffff:192.0.2.7]:2070"),
	})
	require.Equal(t, "52:54:00:12:ab:cd", e.MAC)
	require.Equal(t, "192.0.2.7", e.Addr.String())
	require.Empty(t, tftpEvent(boot.StageTFTPRequest, tftp.Transfer{}).MAC)
}
