package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/customer"
	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/rig"
)

// How often certificates change under load. A file that has changed is noticed
// within two seconds, so a hundred take minutes: make e2e-trust.
const (
	fewRotations  = 3
	allRotations  = 100
	intermediates = 3
	fewPerSecond  = 25 // a busy machine with the race detector keeps up with that
	manyPerSecond = 200
)

// TestRotationUnderLoad changes the server certificate of boot. again and again,
// and the intermediate behind ipxe. three times, while clients that verify
// everything ask on old and on new connections: none may fail.
func TestRotationUnderLoad(t *testing.T) {
	s := newLoopback(t, rig.Loopback{Image: 64 << 10})
	files := newServerFiles(t, s.Dir)
	files.write(t)
	require.NoError(t, s.Proc.Stop(t.Context()), "it starts again with the files in its configuration")
	require.NoError(t, s.Configure(fmt.Sprintf("certificates: [{certificate: %s, key: %s}]", files.chain, files.key)))
	require.NoError(t, s.Start(t.Context()))

	rotations, perSecond := fewRotations, fewPerSecond
	if os.Getenv(whole) != "" {
		rotations, perSecond = allRotations, manyPerSecond
	}
	l := newLoad(t, s, files.root)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.run(ctx, perSecond) })
	start := time.Now()
	for i := range rotations {
		serial := files.write(t)
		require.NoError(t, l.shows(ctx, "boot."+rig.Domain, serial))
		if i%max(rotations/intermediates, 1) == 0 {
			before := l.serial(ctx, t, "ipxe."+rig.Domain)
			_, err := s.Nestctl(ctx, "ca", "rotate")
			require.NoError(t, err)
			require.NoError(t, l.changes(ctx, "ipxe."+rig.Domain, before))
		}
	}
	took := time.Since(start)
	stop()
	running.Wait()
	done, failed := l.done.Load(), l.failed.Load()
	t.Logf("%d server certificates and %d intermediates in %s, %d requests (%.0f/s), %d failed",
		rotations, intermediates, took.Round(time.Second), done, float64(done)/took.Seconds(), failed)
	require.Zero(t, failed, "the first: %v", l.first)
	require.Greater(t, done, int64(rotations), "it was no load")
}

// newLoopback starts a bootd on loopback that makes sets of the newest iPXE; o
// says what else is special.
func newLoopback(t *testing.T, o rig.Loopback) *rig.LoopbackServer {
	t.Helper()
	if testing.Short() {
		t.Skip("starts the whole program")
	}
	m := lab.Need(t)
	bin := programs(t)
	o.Dir, o.Bootd, o.Nestctl, o.Base = t.TempDir(), filepath.Join(bin, "bootd"), filepath.Join(bin, "nestctl"), m.Debs()[1]
	s, err := o.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// serverFiles are a customer's certificate files for boot.
type serverFiles struct {
	chain, key string
	root       *customer.Authority
	issuer     *customer.Authority
}

func newServerFiles(t *testing.T, dir string) *serverFiles {
	t.Helper()
	root, err := customer.NewRoot(customer.P256, "Customer Root")
	require.NoError(t, err)
	issuer, err := root.Sub("Customer Servers")
	require.NoError(t, err)
	return &serverFiles{chain: filepath.Join(dir, "server.pem"), key: filepath.Join(dir, "server.key"), root: root, issuer: issuer}
}

// write replaces both files, one after the other, and returns the serial number
// of the new certificate.
func (f *serverFiles) write(t *testing.T) string {
	t.Helper()
	pair, err := f.issuer.Issue(customer.Leaf{Name: "boot", Usage: x509.ExtKeyUsageServerAuth, Hosts: []string{"boot." + rig.Domain}})
	require.NoError(t, err)
	require.NoError(t, customer.WriteKey(f.key+".new", pair.Key))
	require.NoError(t, customer.WriteCerts(f.chain+".new", pair.Chain...))
	require.NoError(t, os.Rename(f.key+".new", f.key))
	require.NoError(t, os.Rename(f.chain+".new", f.chain))
	return pair.Cert.SerialNumber.Text(16)
}

// load asks a steady number of times a second, in turn of both names, in turn
// on a new connection and on one that is kept.
type load struct {
	addr         string
	roots        *x509.CertPool
	turns        []func(context.Context) error
	done, failed atomic.Int64
	once         sync.Once
	first        error // that failed
}

func newLoad(t *testing.T, s *rig.LoopbackServer, root *customer.Authority) *load {
	t.Helper()
	l := &load{addr: s.HTTPS, roots: x509.NewCertPool()}
	l.roots.AddCert(root.Cert)
	own, err := s.Nestctl(t.Context(), "ca", "export")
	require.NoError(t, err)
	block, _ := pem.Decode(own)
	cert, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	l.roots.AddCert(cert)
	_, err = s.Nestctl(t.Context(), "artifact", "create", "rack1")
	require.NoError(t, err)
	machine, err := s.Certificate(t.Context(), "rack1")
	require.NoError(t, err)
	var answer struct {
		URL struct {
			HTTPS string `json:"https_url"`
		} `json:"ipxe_chain_url"`
	}
	nestctlJSON(t, &s.Server, &answer, "url", "create", "chain", "provider")
	image := "https://ipxe." + rig.Domain + ":" + portOf(t, s.HTTPS) + "/ipxe/images/lab/kernel"
	for _, keep := range []bool{false, true} {
		client := l.client(machine, keep)
		t.Cleanup(client.CloseIdleConnections)
		for _, url := range []string{answer.URL.HTTPS, image} {
			l.turns = append(l.turns, func(ctx context.Context) error { return get(ctx, client, url) })
		}
	}
	return l
}

func (l *load) client(machine tls.Certificate, keep bool) *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: !keep, MaxIdleConnsPerHost: 50, MaxConnsPerHost: 50,
		TLSClientConfig: &tls.Config{RootCAs: l.roots, Certificates: []tls.Certificate{machine}},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, l.addr)
		},
	}}
}

func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // read to its end, or given up
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", res.Status)
	}
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

// run asks until ctx ends, and returns when all has been answered. What a busy
// machine made it miss, it asks afterwards.
func (l *load) run(ctx context.Context, perSecond int) {
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	var asking sync.WaitGroup
	defer asking.Wait()
	seats := make(chan struct{}, 100) // bootd allows 256 connections of one address
	start := time.Now()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for ; n < int(time.Since(start).Seconds()*float64(perSecond)); n++ {
			seats <- struct{}{}
			turn := l.turns[n%len(l.turns)]
			asking.Go(func() {
				defer func() { <-seats }()
				l.ask(context.WithoutCancel(ctx), turn)
			})
		}
	}
}

func (l *load) ask(ctx context.Context, turn func(context.Context) error) {
	if err := turn(ctx); err != nil {
		l.failed.Add(1)
		l.once.Do(func() { l.first = err })
		return
	}
	l.done.Add(1)
}

// presented is the serial number of the certificate that a name shows.
func (l *load) presented(ctx context.Context, host string) (string, error) {
	d := tls.Dialer{Config: &tls.Config{ServerName: host, RootCAs: l.roots}}
	c, err := d.DialContext(ctx, "tcp", l.addr)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }() // nothing was asked
	t, ok := c.(*tls.Conn)
	if !ok {
		return "", fmt.Errorf("dial %s: no TLS connection", host)
	}
	return t.ConnectionState().PeerCertificates[0].SerialNumber.Text(16), nil
}

func (l *load) serial(ctx context.Context, t *testing.T, host string) string {
	t.Helper()
	serial, err := l.presented(ctx, host)
	require.NoError(t, err)
	return serial
}

// shows waits until a name shows the certificate; changes, until it shows
// another.
func (l *load) shows(ctx context.Context, host, serial string) error {
	return l.until(ctx, host, func(now string) bool { return now == serial })
}

func (l *load) changes(ctx context.Context, host, serial string) error {
	return l.until(ctx, host, func(now string) bool { return now != serial })
}

func (l *load) until(ctx context.Context, host string, is func(serial string) bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		serial, err := l.presented(ctx, host)
		if err != nil {
			return err
		}
		if is(serial) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s still shows %s", host, serial)
		case <-tick.C:
		}
	}
}

func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	return port
}
