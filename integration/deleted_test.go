package integration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/rig"
)

// TestDeletedSetIsRefused deletes one of two sets while a machine of it is
// connected: within a second that machine is refused, a machine with the set's
// medium does not boot, and one of the other set does.
func TestDeletedSetIsRefused(t *testing.T) {
	r := newRig(t, rig.Options{})
	machine := func(set string, n int) lab.Machine {
		m := lab.Machine{Name: set, MAC: fmt.Sprintf("52:54:00:00:02:%02x", n), UUID: uuidOf(n), Firmware: lab.BIOS, Boot: lab.CD}
		_, err := r.Server.Nestctl(t.Context(), "artifact", "create", set)
		require.NoError(t, err)
		m.Media = downloaded(t, r, set, set+".iso")
		return m
	}
	gone, kept := machine("gone", 200), machine("kept", 201)
	ask := connected(t, r, gone, "gone")
	status, answer, _ := ask()
	require.Equal(t, http.StatusOK, status, answer)

	start := time.Now()
	_, err := r.Server.Nestctl(t.Context(), "artifact", "delete", "gone")
	require.NoError(t, err)
	status, answer, reused := ask()
	took := time.Since(start)
	require.Equal(t, http.StatusForbidden, status)
	require.Equal(t, "revoked\n", answer)
	require.False(t, reused, "the connection that had been answered before is closed")
	require.Less(t, took, time.Second)
	t.Logf("refused %s after the command to delete its set was given", took)

	t.Run("machines", func(t *testing.T) {
		t.Run("of the deleted set", func(t *testing.T) {
			t.Parallel()
			twice(t, gone, func(ctx context.Context, m lab.Machine) error { return isRefused(ctx, r, m) })
		})
		t.Run("of the other set", func(t *testing.T) {
			t.Parallel()
			twice(t, kept, func(ctx context.Context, m lab.Machine) error { return bootsToTheEnd(ctx, r, m) })
		})
	})
}

// connected makes a client with a set's certificate that asks as machine m
// what to boot, always on one connection, and tells whether it was that.
func connected(t *testing.T, r *rig.Rig, m lab.Machine, set string) func() (status int, answer string, reused bool) {
	t.Helper()
	cert, err := r.Server.Certificate(t.Context(), set)
	require.NoError(t, err)
	var dialed int
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{
			Certificates:       []tls.Certificate{cert},
			MaxVersion:         tls.VersionTLS12,
			InsecureSkipVerify: true, // who answers is not in question here
		},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			dialed++
			return new(net.Dialer).DialContext(ctx, network, lab.ServerIP+":443")
		},
	}}
	t.Cleanup(client.CloseIdleConnections)
	url := fmt.Sprintf("https://ipxe.%s/ipxe/boot?uuid=%s&mac=%s&serial=&arch=x86_64&platform=pcbios",
		rig.Domain, m.UUID, strings.ReplaceAll(m.MAC, ":", "-"))
	return func() (int, string, bool) {
		before := dialed
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		require.NoError(t, err)
		res, err := client.Do(req)
		require.NoError(t, err)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res.StatusCode, string(body), dialed == before
	}
}

// isRefused powers a machine on whose certificate is good no more: it says so
// on its console, tries again, and bootd has an event with the reason.
func isRefused(ctx context.Context, r *rig.Rig, m lab.Machine) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	p, err := r.Lab.Boot(ctx, m)
	if err != nil {
		return err
	}
	defer p.Kill()
	for _, want := range []string{
		`nestboot: ipxe\.lab\.test did not let this machine boot, errno 0x`,
		`nestboot: trying again in 5 seconds`,
	} {
		if _, err := p.WaitFor(ctx, regexp.MustCompile(want)); err != nil {
			return err
		}
	}
	events, err := r.Server.Events(ctx)
	if err != nil {
		return err
	}
	for _, e := range events {
		if e.Stage == boot.StageScript && e.Code == "revoked" {
			return nil
		}
	}
	return errors.New("bootd has no event of the refusal")
}
