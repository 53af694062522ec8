package httpboot

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// optionsAll is a request that net/http answers by itself if it is let, and
// then without any deadline for its body.
const optionsAll = "OPTIONS * HTTP/1.1\r\nHost: boot.test\r\nContent-Length: 4000\r\n\r\nx"

func TestT07_OptionsForTheServerIsOurs(t *testing.T) {
	w := start(t)
	dial := func(addr string, cfg *tls.Config) net.Conn {
		cfg.InsecureSkipVerify = true
		c, err := tls.Dial("tcp", addr, cfg)
		require.NoError(t, err)
		return c
	}
	plain, err := net.Dial("tcp", w.plain)
	require.NoError(t, err)
	for port, tt := range map[string]struct {
		conn   net.Conn
		status int
	}{
		"plain":           {plain, http.StatusMethodNotAllowed},
		"boot":            {dial(w.secure, &tls.Config{ServerName: "boot.test"}), http.StatusMethodNotAllowed},
		"ipxe":            {dial(w.secure, &tls.Config{ServerName: "ipxe.test"}), http.StatusMisdirectedRequest},
		"legacy listener": {dial(w.old, &tls.Config{ServerName: "boot.test", MaxVersion: tls.VersionTLS12, CipherSuites: legacySuites}), http.StatusMethodNotAllowed},
	} {
		t.Cleanup(func() { _ = tt.conn.Close() })
		_, err := io.WriteString(tt.conn, optionsAll)
		require.NoError(t, err)
		// The rest of the body, so that the answer doesn't wait for it.
		_, err = tt.conn.Write(make([]byte, 3999))
		require.NoError(t, err)
		res, err := http.ReadResponse(bufio.NewReader(tt.conn), nil)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, tt.status, res.StatusCode, port)
	}
}

func TestT07_BodyThatDoesNotComeIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Now: time.Now, Log: slog.New(slog.DiscardHandler)}
		l := newHandedOver(&net.TCPAddr{})
		srv := s.httpServer(func(http.ResponseWriter, *http.Request) error { return refuse(http.StatusNotFound, "not-found", nil) })
		var running sync.WaitGroup
		running.Go(func() { _ = srv.Serve(l) })
		client, server := net.Pipe()
		l.give(server)
		begun := time.Now()
		_, err := io.WriteString(client, optionsAll)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, client)
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(begun), bodyTimeout)
		require.NoError(t, srv.Shutdown(context.Background()))
		running.Wait()
	})
}
