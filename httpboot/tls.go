package httpboot

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/nestboot/nestboot/boot"
)

// handshakeTimeout is enough for firmware that computes RSA on an emulated
// processor: OVMF under TCG takes about a second.
const handshakeTimeout = 15 * time.Second

// front is one TLS port: what it speaks, and which server answers a host.
type front struct {
	listener net.Listener
	config   func(Host) *tls.Config
	hosts    map[Role]*served
}

// served are all hosts of one role: they share a server.
type served struct {
	conns  *handedOver
	answer hostHandler
}

func (s *Server) secureFront(l net.Listener) *front {
	return &front{
		listener: newLimited(l, s), config: tlsConfig,
		hosts: map[Role]*served{Boot: {newHandedOver(l.Addr()), s.machine}, IPXE: {newHandedOver(l.Addr()), s.ipxe}},
	}
}

// suites are what iPXE 1.21.1 and newer can do that has forward secrecy and an
// AEAD (T10). TLS 1.3 brings its own.
var suites = []uint16{
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
}

// tlsConfig is made for each connection, so no two hosts share one: HTTP/1.1
// only (T9), and no session tickets, so that every connection proves anew who
// it is (T11).
func tlsConfig(host Host) *tls.Config {
	auth := tls.NoClientCert
	if host.Role == IPXE {
		auth = tls.RequestClientCert // the handshake records it; each request decides
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		CipherSuites:           suites,
		NextProtos:             []string{"http/1.1"},
		ClientAuth:             auth,
		VerifyPeerCertificate:  checkChainSize,
		SessionTicketsDisabled: true,
		GetCertificate:         host.Certificate,
		// Small first records are for browsers: a file wants large ones.
		DynamicRecordSizingDisabled: true,
	}
}

// What a client may send as its certificates. They are parsed before anybody
// knows whose they are, and parsed they take ten times as much for as long as
// the connection is open (T7).
const (
	maxChain      = 16
	maxChainBytes = 32 << 10
)

func checkChainSize(raw [][]byte, _ [][]*x509.Certificate) error {
	size := 0
	for _, der := range raw {
		size += len(der)
	}
	if len(raw) > maxChain || size > maxChainBytes {
		return fmt.Errorf("the client sent %d certificates of %d bytes in all, want at most %d of %d: "+
			"give it its own and its intermediates only", len(raw), size, maxChain, maxChainBytes)
	}
	return nil
}

// acceptTLS accepts until the listener is closed, and hands each connection to the host
// that its ClientHello names. Which one is decided before any certificate is
// sent or requested. It returns when every handshake has ended.
func (s *Server) acceptTLS(ctx context.Context, f *front) error {
	var running sync.WaitGroup
	defer running.Wait()
	for pause := minPause; ; {
		c, err := f.listener.Accept()
		if closed(err) {
			return nil
		}
		if err != nil { // out of file descriptors or memory: that passes, and boots must go on
			s.Log.WarnContext(ctx, "connection was not accepted", "addr", f.listener.Addr().String(), "err", err)
			wait(ctx, pause)
			pause = min(2*pause, maxPause)
			continue
		}
		pause = minPause
		running.Go(func() { s.handshake(ctx, c, f) })
	}
}

// The pause after a connection could not be accepted.
const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (s *Server) handshake(ctx context.Context, raw net.Conn, f *front) {
	start := s.Now()
	var to *served
	var role Role
	var hello *tls.ClientHelloInfo
	c := tls.Server(raw, &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			hello = h
			host, ok := s.Site.Hosts(strings.ToLower(h.ServerName))
			if to = f.hosts[host.Role]; !ok || to == nil {
				if host.Gone != "" {
					return nil, fmt.Errorf("the name %s answers no more: %s", boot.Excerpt(h.ServerName, 80), host.Gone)
				}
				return nil, fmt.Errorf("no server has the name %s", boot.Excerpt(h.ServerName, 80))
			}
			role = host.Role
			return f.config(host), nil
		},
	})
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	err := c.HandshakeContext(ctx)
	if err != nil {
		_ = c.Close() // the handshake's error is the one that counts
	}
	if hello == nil {
		return // a port scan or a health check: no TLS was spoken
	}
	s.recordTLS(role, hello, c, start, err)
	if err == nil {
		to.conns.give(c)
	}
}

// recordTLS records the handshakes of machines that identify themselves, and
// every one that failed: that is where a wrong trust root shows.
func (s *Server) recordTLS(role Role, hello *tls.ClientHelloInfo, c *tls.Conn, start time.Time, err error) {
	if err == nil && role != IPXE {
		return
	}
	e := boot.Event{Stage: boot.StageTLS, Addr: remoteAddr(c), Duration: s.Now().Sub(start)}
	e.Name = strings.Trim(boot.Excerpt(hello.ServerName, maxName), `"`)
	if err != nil {
		e.Code, e.Error = "tls-failed", explainTLS(err)
	} else {
		e.Detail = describeTLS(c.ConnectionState())
	}
	s.Site.Record(e)
}

// maxName is the length of a DNS name; a ClientHello may hold a longer one.
const maxName = 253

func describeTLS(state tls.ConnectionState) string {
	client := "no client certificate"
	if len(state.PeerCertificates) > 0 {
		client = fmt.Sprintf("certificate of %s", boot.Excerpt(state.PeerCertificates[0].Subject.CommonName, 60))
	}
	return fmt.Sprintf("%s, %s, %s", tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite), client)
}

// explainTLS adds what a failed handshake means for a machine.
func explainTLS(err error) string {
	var op *net.OpError // crypto/tls reports alerts as one, the other side's and its own
	remote := errors.As(err, &op) && op.Op == "remote error"
	// OpenSSL 3.0 sends the alert of TLS 1.3 in a form that cannot be decrypted.
	garbled := op != nil && op.Op == "local error" && strings.HasSuffix(err.Error(), "bad record MAC")
	if remote || garbled || isHangUp(err) {
		return err.Error() + ": the machine broke off after it saw our certificate; " +
			"most often its artifact trusts another root, or its clock is more than a day behind or far ahead"
	}
	return err.Error()
}
