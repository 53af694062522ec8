package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// inFlight is how many handshakes are under way at a time: enough that the
// server never waits for the client.
const inFlight = 48

// target is a server and how to speak to it.
type target struct {
	Addr string // host and port
	Name string // of the server, as SNI and Host
	Path string // asked for after each handshake; nothing when empty
}

// tally is what a round of load came to.
type tally struct {
	Done, Failed int
	Took         time.Duration
	Error        string // of the first that failed
}

// load makes full handshakes, each on a connection of its own, for as long as
// ctx lasts.
func load(ctx context.Context, to target, cert tls.Certificate) tally {
	config := &tls.Config{
		ServerName:         to.Name,
		Certificates:       []tls.Certificate{cert},
		InsecureSkipVerify: true, // whether the client verifies is nothing to the server
		MaxVersion:         tls.VersionTLS12,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		},
	}
	var done, failed atomic.Int64
	var first sync.Once
	var t tally
	var running sync.WaitGroup
	start := time.Now()
	for range inFlight {
		running.Go(func() {
			for ctx.Err() == nil {
				err := once(to, config)
				if err == nil {
					done.Add(1)
					continue
				}
				failed.Add(1)
				first.Do(func() { t.Error = err.Error() })
			}
		})
	}
	running.Wait()
	t.Took, t.Done, t.Failed = time.Since(start), int(done.Load()), int(failed.Load())
	return t
}

// patience is for one connection, however long the queue before it.
const patience = 20 * time.Second

// once makes one connection, and asks for the path where there is one. It is
// brought to its end also when the round is over: a half one would count for
// nothing and cost the server something.
func once(to target, config *tls.Config) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", to.Addr)
	if err != nil {
		return err
	}
	c := tls.Client(raw, config)
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	if state := c.ConnectionState(); state.DidResume {
		return errors.New("the server resumed a session: this is no full handshake")
	}
	if to.Path == "" {
		return nil
	}
	return ask(ctx, c, to)
}

func ask(ctx context.Context, c *tls.Conn, to target) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+to.Name+to.Path, http.NoBody)
	if err != nil {
		return err
	}
	if err := req.Write(c); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // the connection ends here
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", res.Status)
	}
	_, err = io.Copy(io.Discard, res.Body)
	return err
}
