package main

import (
	"bufio"
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

const requestTimeout = 10 * time.Second

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
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	body, err := c.open(ctx, path, "application/json", "")
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // it has been read
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// open sends a GET and returns the body of a 200.
func (c *client) open(ctx context.Context, path, accept, lastEvent string) (io.ReadCloser, error) {
	url := "http://bootd/api/v1/orgs" + path
	if c.org != "" {
		url = "http://bootd/api/v1/orgs/" + c.org + path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Accept", accept)
	if lastEvent != "" {
		req.Header.Set("Last-Event-ID", lastEvent)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
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
	body, err := c.open(ctx, "/events", "text/event-stream", fmt.Sprint(since))
	if err != nil {
		return since, err
	}
	defer func() { _ = body.Close() }() // the reader's error counts
	last = since
	lines := bufio.NewScanner(body)
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
