// Package fetch gets the files of releases from where an operator says: the
// maker's site, a mirror, or a folder.
//
// The operator who names a mirror may have few rights, so a name must not reach
// what only this host can reach: addresses are looked at when they are dialled
// (T25). What arrives is bounded, and nothing here believes it: verifying is
// others' business. Begin at NewClient and NewFolder.
package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"
)

const (
	dialTimeout  = 20 * time.Second
	stallTimeout = time.Minute // without a byte
)

// Config says how files are fetched.
type Config struct {
	// Proxy is the URL of a forward proxy. Empty: HTTPS_PROXY, HTTP_PROXY and
	// NO_PROXY of the environment count. Addresses behind a proxy are the proxy's
	// to judge; only what stands in a URL itself is looked at here.
	Proxy string
	// CA is a file of certificates that servers may have beside the system's.
	CA string
	// Mirrors are URLs of which the host may have a private or loopback address.
	Mirrors []string
	// Reserve is how many bytes must stay free in the file system.
	Reserve int64
}

// Client fetches over HTTP. Its methods may be called concurrently.
type Client struct {
	http    *http.Client
	proxy   func(*url.URL) (*url.URL, error)
	named   map[string]bool // host:port
	proxies map[string]bool // host:port
	reserve int64
	retry   time.Duration // between tries that make no progress
	resolve *net.Resolver // nil: the system's
}

// NewClient checks the configuration. It contacts nobody.
func NewClient(c Config) (*Client, error) {
	out := &Client{named: map[string]bool{}, proxies: map[string]bool{}, reserve: c.Reserve, retry: time.Second}
	for _, m := range c.Mirrors {
		u, err := parseURL(m)
		if err != nil {
			return nil, fmt.Errorf("mirrors: %w", err)
		}
		out.named[hostPort(u)] = true
	}
	if err := out.useProxy(c.Proxy); err != nil {
		return nil, err
	}
	roots, err := trustedRoots(c.CA)
	if err != nil {
		return nil, err
	}
	out.http = &http.Client{
		Transport: &http.Transport{
			Proxy:                 func(req *http.Request) (*url.URL, error) { return out.proxy(req.URL) },
			DialContext:           out.dial,
			TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:   dialTimeout,
			ResponseHeaderTimeout: stallTimeout,
			DisableCompression:    true, // what is not unpacked is no bomb (T26)
			MaxIdleConns:          4,
			IdleConnTimeout:       time.Minute,
		},
		CheckRedirect: sameHost,
	}
	return out, nil
}

// Close closes connections that idle.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) useProxy(proxy string) error {
	env := httpproxy.FromEnvironment()
	if proxy != "" {
		u, err := url.Parse(proxy)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return errors.New("proxy: want a URL like http://proxy.example.com:3128") // it may hold a password
		}
		env = &httpproxy.Config{HTTPProxy: proxy, HTTPSProxy: proxy}
	}
	for _, p := range []string{env.HTTPProxy, env.HTTPSProxy} {
		if u, err := url.Parse(p); err == nil && u.Host != "" {
			c.proxies[hostPort(u)] = true
		}
	}
	c.proxy = env.ProxyFunc()
	return nil
}

func trustedRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil // the system's
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificates: %w", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("certificates of mirrors: %w", err)
	}
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("certificates of mirrors: %s holds no certificate in PEM", path)
	}
	return roots, nil
}

func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%.200q is not a URL like https://mirror.example.com/flatcar", s)
	}
	return u, nil
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// sameHost follows a redirect on the same host alone, and never away from TLS:
// another host is another mirror, which the operator has not named.
func sameHost(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	if len(via) > 3 || hostPort(req.URL) != hostPort(first) || req.URL.Scheme != first.Scheme {
		return fmt.Errorf("it redirects to %s://%.200s: name that one with --mirror, if it is to be trusted with the download", req.URL.Scheme, req.URL.Host)
	}
	return nil
}

// dial connects, and looks at the address after the name has been resolved: what
// a name meant a moment ago does not count.
func (c *Client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	named := c.named[strings.ToLower(addr)]
	d := &net.Dialer{Timeout: dialTimeout, Resolver: c.resolve}
	if !c.proxies[strings.ToLower(addr)] {
		d.Control = func(_, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("parse address: %w", err)
			}
			return checkAddr(at.Addr(), named)
		}
	}
	return d.DialContext(ctx, network, addr)
}
