package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/nestboot/nestboot/images/pull"
)

// watch sends a request whose answer tells what goes on until it is over, and
// returns the last answer.
func (c *client) watch(ctx context.Context, r request, show *progress) (json.RawMessage, error) {
	res, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // the reader's error counts
	defer show.end()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	event := ""
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			event = name
		}
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		switch event {
		case "done":
			return json.RawMessage(data), nil
		case "failed":
			var e struct {
				Error string `json:"error"`
			}
			if err := json.Unmarshal([]byte(data), &e); err != nil {
				return nil, fmt.Errorf("read answer: %w", err)
			}
			return nil, errors.New(printable(e.Error))
		case "progress":
			var p pull.Progress
			if err := json.Unmarshal([]byte(data), &p); err != nil {
				return nil, fmt.Errorf("read progress: %w", err)
			}
			show.tell(p)
		}
	}
	if ctx.Err() != nil {
		return nil, errors.New("interrupted: the next pull goes on where this one ended")
	}
	return nil, errors.Join(errors.New("bootd closed the connection: it has stopped"), lines.Err())
}

// progress shows how far a download is: a bar on a terminal, a line now and then
// elsewhere.
type progress struct {
	w        io.Writer
	terminal bool
	now      func() time.Time
	file     string
	started  time.Time
	begun    int64 // bytes that were there when the file was begun
	tenths   int64 // lines that were printed
	open     bool  // the cursor stands behind a bar
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, now: time.Now}
	if f, ok := w.(*os.File); ok {
		p.terminal = term.IsTerminal(int(f.Fd()))
	}
	return p
}

func (p *progress) tell(e pull.Progress) {
	switch e.Step {
	case "file":
		p.bytes(e)
	case "verify":
		p.line("verifying " + e.File)
	default:
		p.line(e.Text)
	}
}

// line prints a line of its own.
func (p *progress) line(text string) {
	p.end()
	_, _ = fmt.Fprintln(p.w, printable(text)) // it only tells what goes on
}

// end ends a bar.
func (p *progress) end() {
	if p.open {
		_, _ = fmt.Fprintln(p.w)
	}
	p.open = false
}

// bytes shows a number of bytes.
func (p *progress) bytes(e pull.Progress) {
	if e.File != p.file {
		p.end()
		p.file, p.started, p.begun, p.tenths = e.File, p.now(), e.Done, -1
	}
	if p.terminal {
		_, _ = fmt.Fprintf(p.w, "\r\x1b[K%s", p.bar(e))
		p.open = true
		return
	}
	if e.Total <= 0 {
		return
	}
	if tenths := 10 * e.Done / e.Total; tenths > p.tenths {
		p.tenths = tenths
		_, _ = fmt.Fprintln(p.w, p.text(e))
	}
}

// bar is at most 78 columns wide.
func (p *progress) bar(e pull.Progress) string {
	const width = 24
	text := p.text(e)
	if e.Total <= 0 || len(text) > 78-width-3 {
		return text[:min(len(text), 78)]
	}
	full := int(width * e.Done / e.Total)
	return "[" + strings.Repeat("#", full) + strings.Repeat(" ", width-full) + "] " + text
}

func (p *progress) text(e pull.Progress) string {
	file := printable(e.File)
	if len(file) > 32 {
		file = file[:15] + ".." + file[len(file)-15:]
	}
	if e.Total <= 0 {
		return fmt.Sprintf("%s %s", file, mebibytes(e.Done))
	}
	text := fmt.Sprintf("%s %3d%% of %s", file, 100*e.Done/e.Total, mebibytes(e.Total))
	if s := p.now().Sub(p.started).Seconds(); s > 1 && e.Done > p.begun {
		text += fmt.Sprintf(" %s/s", mebibytes(int64(float64(e.Done-p.begun)/s)))
	}
	return text
}

func mebibytes(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", (n+1023)>>10)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
