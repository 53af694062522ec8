package httpboot

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Limits of a connection (T7, T8).
const (
	headerTimeout  = 5 * time.Second
	idleTimeout    = 2 * time.Minute // iPXE keeps its connection while it unpacks an initrd
	bodyTimeout    = 30 * time.Second
	maxHeaderBytes = 16 << 10
	maxBodyBytes   = 64 << 10 // of what a machine may send
)

// Serve answers on a plain and on a TLS listener until ctx ends, then lets
// running answers end for up to Grace, and returns when all of its goroutines
// have. The caller listens, so an address that cannot be had is its error.
func (s *Server) Serve(ctx context.Context, plain, secure net.Listener) error {
	ipxe := &vhost{name: s.Names.IPXE, config: s.tlsConfig(tls.RequestClientCert), conns: newHandedOver(secure.Addr())}
	machine := &vhost{name: s.Names.Boot, config: s.tlsConfig(tls.NoClientCert), conns: newHandedOver(secure.Addr())}
	hosts := map[string]*vhost{ipxe.name: ipxe, machine.name: machine, "": machine}
	secure = newLimited(secure)
	servers := []*http.Server{
		s.httpServer(s.plain),
		s.httpServer(named(ipxe.name, s.ipxe)),
		s.httpServer(named(machine.name, s.machine)),
	}
	listeners := []net.Listener{newLimited(plain), ipxe.conns, machine.conns}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, len(servers)+1)
	var running sync.WaitGroup
	for i, srv := range servers {
		running.Go(func() { failed <- ignoreClosed(srv.Serve(listeners[i])) })
	}
	stop := closeOnDone(ctx, secure)
	defer stop()
	running.Go(func() { failed <- s.acceptTLS(ctx, secure, hosts) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	cancel()
	s.shutdown(servers)
	running.Wait()
	return err
}

// shutdown lets running answers end, and cuts off what takes longer than Grace.
// Then it waits for the handlers, which notice at their next write.
func (s *Server) shutdown(servers []*http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), s.Grace)
	defer cancel()
	var stopping sync.WaitGroup
	for _, srv := range servers {
		stopping.Go(func() {
			if err := srv.Shutdown(ctx); err != nil {
				s.Log.Warn("answers were cut off at the stop", "err", errors.Join(err, srv.Close()))
			}
		})
	}
	stopping.Wait()
	s.handlers.Wait()
}

type handler func(w http.ResponseWriter, req *http.Request) error

func (s *Server) httpServer(h handler) *http.Server {
	return &http.Server{
		Handler:           s.handle(h),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // no HTTP/2 (T9)
	}
}

// handle turns an error of h into an answer, once, unless one has begun.
func (s *Server) handle(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.handlers.Add(1)
		defer s.handlers.Done()
		s.setDeadlines(w, req)
		answer := &begun{ResponseWriter: w}
		err := s.safely(h, answer, req)
		if err == nil {
			return
		}
		r := asRefusal(err)
		s.Log.DebugContext(req.Context(), "request was refused", "addr", req.RemoteAddr, "code", r.code, "err", err)
		if answer.yes {
			// Too late for another status: break the connection off, so that the
			// client does not take a part for the whole.
			panic(http.ErrAbortHandler)
		}
		answerRefusal(w, r)
	})
}

// setDeadlines bounds the time for a request's body and for its answer. They
// are set anew for each request, because net/http leaves those of the one
// before in force.
func (s *Server) setDeadlines(w http.ResponseWriter, req *http.Request) {
	control := http.NewResponseController(w)
	now := time.Now()
	err := control.SetWriteDeadline(now.Add(stallTimeout))
	if req.ContentLength != 0 {
		req.Body = http.MaxBytesReader(w, req.Body, maxBodyBytes)
		err = errors.Join(err, control.SetReadDeadline(now.Add(bodyTimeout)))
	}
	if err != nil {
		s.Log.ErrorContext(req.Context(), "deadlines were not set", "err", err)
	}
}

// safely makes a panic of h an error like any other, and logs where it came from.
func (s *Server) safely(h handler, w http.ResponseWriter, req *http.Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.Log.ErrorContext(req.Context(), "handler panicked", "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("handler panicked: %v", p)
		}
	}()
	return h(w, req)
}

// named refuses a request for another host than the one that TLS was spoken
// to (T11), with 421 as RFC 9110 section 15.5.20 has it. A client that sent no
// SNI may use any address of ours.
func named(name string, h handler) handler {
	return func(w http.ResponseWriter, req *http.Request) error {
		host := strings.ToLower(req.Host)
		if bare, _, err := net.SplitHostPort(host); err == nil {
			host = bare
		}
		sni := strings.ToLower(req.TLS.ServerName)
		if host != name && (sni != "" || net.ParseIP(strings.Trim(host, "[]")) == nil) {
			return refuse(http.StatusMisdirectedRequest, "misdirected", fmt.Errorf("host %.80q was asked for on a connection to %.80q", host, sni))
		}
		return h(w, req)
	}
}

// begun knows whether an answer has begun.
type begun struct {
	http.ResponseWriter
	yes bool
}

func (b *begun) WriteHeader(status int) {
	b.yes = true
	b.ResponseWriter.WriteHeader(status)
}

func (b *begun) Write(p []byte) (int, error) {
	b.yes = true
	return b.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController find the connection.
func (b *begun) Unwrap() http.ResponseWriter { return b.ResponseWriter }

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || closed(err) {
		return nil
	}
	return fmt.Errorf("serve: %w", err)
}

func isHangUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}
