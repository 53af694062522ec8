package httpboot

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nestboot/nestboot/boot"
)

// Limits of a connection (T7, T8).
const (
	headerTimeout  = 5 * time.Second
	idleTimeout    = 2 * time.Minute // iPXE keeps its connection while it unpacks an initrd
	bodyTimeout    = 30 * time.Second
	maxHeaderBytes = 16 << 10
	maxBodyBytes   = 64 << 10 // of what a machine may send
)

// Serve answers on a plain and on a TLS listener, and on one for firmware that
// cannot do better than RSA key exchange if legacy is not nil, until ctx ends.
// Then it lets running answers end for up to Grace, and returns when all of its
// goroutines have. The caller listens, so an address that cannot be had is its
// error.
func (s *Server) Serve(ctx context.Context, plain, secure, legacy net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.configured.Do(func() { s.share.rates = s.Rates })
	fronts := []*front{s.secureFront(secure)}
	if legacy != nil {
		fronts = append(fronts, s.legacyFront(legacy))
	}
	servers := map[*http.Server]net.Listener{s.httpServer(s.plain): newLimited(plain, s)}
	for _, f := range fronts {
		for role, h := range f.hosts {
			servers[s.httpServer(s.named(role, h.answer))] = h.conns
		}
	}
	failed := make(chan error, len(servers)+len(fronts))
	var running sync.WaitGroup
	for srv, l := range servers {
		running.Go(func() { failed <- ignoreClosed(srv.Serve(l)) })
	}
	for _, f := range fronts {
		stop := closeOnDone(ctx, f.listener)
		defer stop()
		running.Go(func() { failed <- s.acceptTLS(ctx, f) })
	}
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx)) // until the last answer has ended
	defer unwatch()
	running.Go(func() { s.watch(watching) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	cancel()
	s.shutdown(slices.Collect(maps.Keys(servers)))
	unwatch()
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

// hostHandler also knows which of our hosts was asked.
type hostHandler func(w http.ResponseWriter, req *http.Request, host Host) error

func (s *Server) httpServer(h handler) *http.Server {
	return &http.Server{
		Handler:           s.handle(h),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnContext:       withConn,
		ConnState:         noteState,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // no HTTP/2 (T9)
		// net/http's own answer to "OPTIONS *" waits for the body without a deadline (T7).
		DisableGeneralOptionsHandler: true,
	}
}

// handle turns an error of h into an answer, once, unless one has begun.
func (s *Server) handle(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.handlers.Add(1)
		defer s.handlers.Done()
		s.setDeadlines(w, req)
		if c := connOf(req); c != nil && s.Now().Sub(c.since) > s.maxAge() {
			w.Header().Set("Connection", "close") // after this answer, however long it takes
		}
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
		if s.isStranger(req) {
			w.Header().Set("Connection", "close")
		}
		answerRefusal(w, r)
	})
}

// isStranger reports whether the certificates on a connection have proved
// nothing yet: keeping them in memory while it is idle is not worth it (T7).
func (s *Server) isStranger(req *http.Request) bool {
	c := connOf(req)
	return c != nil && req.TLS != nil && len(req.TLS.PeerCertificates) > 0 && !c.proved.Load()
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
// to (T11), or for one that is gone since, with 421 as RFC 9110 section 15.5.20
// has it. A client that sent no SNI may use any address of ours.
func (s *Server) named(role Role, h hostHandler) handler {
	return func(w http.ResponseWriter, req *http.Request) error {
		asked := strings.ToLower(req.Host)
		if bare, _, err := net.SplitHostPort(asked); err == nil {
			asked = bare
		}
		sni := strings.ToLower(req.TLS.ServerName)
		host, ok := s.Site.Hosts(sni)
		anyAddress := sni == "" && net.ParseIP(strings.Trim(asked, "[]")) != nil
		if !ok || host.Role != role || asked != host.Name && !anyAddress {
			return refuse(http.StatusMisdirectedRequest, "misdirected", fmt.Errorf("host %s was asked for on a connection to %s", boot.Excerpt(asked, 80), boot.Excerpt(sni, 80)))
		}
		return h(w, req, host)
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

// ReadFrom lets a file reach the connection without a copy.
func (b *begun) ReadFrom(r io.Reader) (int64, error) {
	b.yes = true
	return io.Copy(b.ResponseWriter, r)
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
