package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/nestboot/nestboot/boot"
)

// client speaks to bootd's admin API over its Unix socket.
type client struct {
	http http.Client
	org  string
}

// requestTimeout is above all that bootd takes for an answer: making a set
// under a new trust root is the longest.
const requestTimeout = time.Minute

// dial finds the socket's organization, which is part of every path.
func dial(ctx context.Context, socket string) (*client, error) {
	c := &client{}
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	var answer struct {
		Orgs []struct {
			ID string `json:"id"`
		} `json:"orgs"`
	}
	if err := c.get(ctx, "", &answer); err != nil {
		return nil, explainDial(socket, err)
	}
	if len(answer.Orgs) != 1 {
		return nil, fmt.Errorf("bootd on %s has %d organizations, want one: are the versions the same?", socket, len(answer.Orgs))
	}
	c.org = answer.Orgs[0].ID
	return c, nil
}

func explainDial(socket string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no bootd has made %s: start it, or name its listen.admin with --socket or NESTBOOT_SOCKET", socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no bootd answers on %s: is it running?", socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be opened: run nestctl as the user that bootd runs as, or as root", socket)
	}
	return fmt.Errorf("ask bootd on %s: %w", socket, err)
}

// get reads one JSON answer into out.
func (c *client) get(ctx context.Context, path string, out any) error {
	return c.call(ctx, http.MethodGet, path, nil, out)
}

// call sends a request, with in as its JSON body unless it is nil, and reads
// the JSON answer into out.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	return c.callFor(ctx, requestTimeout, method, path, in, out)
}

// callFor is call for what may take longer.
func (c *client) callFor(ctx context.Context, timeout time.Duration, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r := request{method: method, path: path, accept: "application/json"}
	if in != nil {
		var err error
		if r.body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("make request: %w", err)
		}
	}
	res, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // it has been read
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// request is one question to bootd; the path starts behind the organization.
type request struct {
	method, path, accept, lastEvent string
	body                            []byte
	stream                          io.Reader // instead of body
}

// do sends a request and returns an answer of 2xx, whose body is the caller's
// to close.
func (c *client) do(ctx context.Context, r request) (*http.Response, error) {
	url := "http://bootd/api/v1/orgs" + r.path
	if c.org != "" {
		url = "http://bootd/api/v1/orgs/" + c.org + r.path
	}
	body := io.Reader(bytes.NewReader(r.body))
	if r.stream != nil {
		body = r.stream
	}
	req, err := http.NewRequestWithContext(ctx, r.method, url, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Accept", r.accept)
	if r.lastEvent != "" {
		req.Header.Set("Last-Event-ID", r.lastEvent)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }() // only the error counts
	var e struct {
		Error string `json:"error"`
	}
	if err := json.NewDecoder(res.Body).Decode(&e); err != nil || e.Error == "" {
		return nil, fmt.Errorf("bootd answered %s", res.Status)
	}
	return nil, errors.New(e.Error)
}

// errDropped ends a stream whose reader was too slow.
var errDropped = errors.New("bootd dropped this listener because it fell behind")

// follow calls each with the events after since, then with those that come,
// until ctx ends. It connects again where the stream was broken off, without
// losing or repeating an event.
func (c *client) follow(ctx context.Context, since int64, each func(boot.Event) error) error {
	for {
		last, err := c.stream(ctx, since, each)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, errDropped) && !errors.Is(err, io.EOF) {
			return err
		}
		since = last
		if errors.Is(err, io.EOF) {
			return errors.New("bootd closed the stream: it has stopped")
		}
	}
}

func (c *client) stream(ctx context.Context, since int64, each func(boot.Event) error) (last int64, err error) {
	res, err := c.do(ctx, request{method: http.MethodGet, path: "/events", accept: "text/event-stream", lastEvent: fmt.Sprint(since)})
	if err != nil {
		return since, err
	}
	defer func() { _ = res.Body.Close() }() // the reader's error counts
	last = since
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if lines.Text() == "event: dropped" {
			return last, errDropped
		}
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var e boot.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return last, fmt.Errorf("read event: %w", err)
		}
		if err := each(e); err != nil {
			return last, err
		}
		last = e.ID
	}
	// bootd ends its streams when it stops, without a last chunk.
	if err := lines.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return last, fmt.Errorf("read events: %w", err)
	}
	return last, io.EOF
}
