package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// sockets are all addresses that bootd answers on, taken before anything else
// is done, so that a busy port changes nothing.
type sockets struct {
	tftp                 []*net.UDPConn
	http, https, metrics net.Listener
	legacy               net.Listener // nil: off
}

func openSockets(ctx context.Context, l Listen, t TFTP) (*sockets, error) {
	s := &sockets{}
	var lc net.ListenConfig
	var errs []error
	tcp := func(field, addr string) net.Listener {
		ln, err := lc.Listen(ctx, "tcp", addr)
		errs = append(errs, explainListen(field, addr, err))
		return ln
	}
	var err error
	s.tftp, err = listenTFTP(ctx, l.TFTP, t)
	errs = append(errs, err)
	s.http = tcp("listen.http", l.HTTP)
	s.https = tcp("listen.https", l.HTTPS)
	if l.LegacyHTTPS != "" {
		s.legacy = tcp("listen.legacy_https", l.LegacyHTTPS)
	}
	s.metrics = tcp("listen.metrics", l.Metrics)
	if err := errors.Join(errs...); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// close closes what is open; closing twice is harmless.
func (s *sockets) close() {
	for _, c := range s.tftp {
		_ = c.Close()
	}
	for _, l := range []net.Listener{s.http, s.https, s.legacy, s.metrics} {
		if l != nil {
			_ = l.Close()
		}
	}
}

// explainListen adds the usual cause and its cure.
func explainListen(field, addr string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s: %s is taken by another program (ss -lnptu shows which): stop it or choose another port", field, addr)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: %s may not be used by this user: start bootd by its systemd unit or as root, or use --dev", field, addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: %s is not an address of this host", field, addr)
	}
	return fmt.Errorf("%s: listen on %s: %w", field, addr, err)
}

// maxSocketPath is what fits into a sockaddr_un (unix(7)).
const maxSocketPath = 107

func tooLong(path string) error {
	return fmt.Errorf("listen.admin: %s is longer than the %d bytes that a Unix socket may have: set a shorter one", path, maxSocketPath)
}

// listenAdmin makes the operator's socket. A socket that a killed bootd left
// behind is replaced; one that somebody answers on is not.
func listenAdmin(ctx context.Context, path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, tooLong(path)
	}
	var d net.Dialer
	if c, err := d.DialContext(ctx, "unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("listen.admin: another bootd answers on %s: stop it or set another path", path)
	}
	if err := removeSocket(path); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	// run has set the umask to 0077: nobody else can connect, not even for a moment.
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen.admin: %w", err)
	}
	return l, nil
}

func removeSocket(path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("listen.admin: %w", err)
	case st.Mode().Type() != os.ModeSocket:
		return fmt.Errorf("listen.admin: %s is there and is not a socket: remove it or set another path", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("listen.admin: %w", err)
	}
	return nil
}

// urlOf is the URL of a host name on a listener's port.
func urlOf(scheme, host string, l net.Listener) string {
	_, port, err := net.SplitHostPort(l.Addr().String())
	usual := map[string]string{"https": "443", "http": "80"}[scheme]
	if err != nil || port == usual { // a TCP listener always has a port
		return scheme + "://" + host
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}
