package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/nestboot/nestboot/integration/lab"
)

// recorder answers and keeps what it is asked.
type recorder struct {
	files    map[string][]byte // by name; a script by name and version of iPXE
	out      string
	firmware string // what runs just now

	mu   sync.Mutex
	seen map[string]bool // kinds of requests
	news chan struct{}
}

func (r *recorder) serve(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", lab.ServerIP+":80")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: r, ReadHeaderTimeout: time.Minute, ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, tapKey{}, c)
	}}
	go func() { _ = srv.Serve(tapped{l}) }() // ends with the program
	return nil
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	raw := req.Context().Value(tapKey{}).(*tap).take()
	kind := r.kind(req)
	r.keep(kind, raw)
	name := strings.TrimPrefix(req.URL.Path, "/")
	if name == "boot.ipxe" {
		name += " " + version.FindString(req.UserAgent())
	}
	content, ok := r.files[name]
	if !ok {
		http.NotFound(w, req)
		return
	}
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(content))
}

var version = regexp.MustCompile(`[0-9]+(\.[0-9]+)+`)

// kind names a request by who sends it, and by its method where that tells
// something.
func (r *recorder) kind(req *http.Request) string {
	agent := req.UserAgent()
	number := version.FindString(agent)
	switch {
	case strings.HasPrefix(agent, "iPXE"):
		return "ipxe-" + number
	case strings.HasPrefix(agent, "Ignition"):
		return "ignition"
	case strings.HasPrefix(agent, "curl"):
		return r.firmware
	case strings.HasPrefix(agent, "UefiHttpBoot"):
		if r.firmware == "grub" { // it is loaded by OVMF
			return ""
		}
		return r.firmware + "-" + strings.ToLower(req.Method)
	case strings.Contains(agent, "GRUB"):
		return "grub-" + number
	}
	return r.firmware + "-unknown"
}

// keep writes the first request of each kind.
func (r *recorder) keep(kind string, raw []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Printf("record-quirks: %s: %s\n", kind, bytes.SplitN(raw, []byte("\r\n"), 2)[0])
	if kind == "" || r.seen[kind] {
		return
	}
	if err := os.WriteFile(filepath.Join(r.out, kind+".request"), raw, 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "record-quirks:", err)
		return
	}
	r.seen[kind] = true
	select {
	case r.news <- struct{}{}:
	default: // somebody is told already
	}
}

// wait returns when requests of all kinds were recorded.
func (r *recorder) wait(ctx context.Context, kinds []string, p *lab.Proc) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		r.mu.Lock()
		var missing []string
		for _, k := range kinds {
			if !r.seen[k] {
				missing = append(missing, k)
			}
		}
		r.mu.Unlock()
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-r.news:
		case <-ctx.Done():
			return fmt.Errorf("no request of %v came; it printed %d lines: %w", missing, len(p.Lines()), ctx.Err())
		}
	}
}

// tapped is a listener whose connections keep what they read.
type tapped struct{ net.Listener }

func (t tapped) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &tap{Conn: c}, nil
}

type tapKey struct{}

type tap struct {
	net.Conn
	mu   sync.Mutex
	read []byte
}

func (t *tap) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.read = append(t.read, b[:n]...)
	return n, err
}

// take is the head of the request that is being answered: nobody here sends a
// body, nor a request before the last one was answered.
func (t *tap) take() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	raw := t.read
	t.read = nil
	return raw
}
