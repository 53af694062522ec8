package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"
)

// Line is one line that a process or a machine printed, without control characters.
type Line struct {
	At   time.Duration // since the start of the process: for a machine, since power-on
	Text string
}

// errEnded says that there will be no more lines.
var errEnded = errors.New("ended")

// maxLine bounds a line, in bytes: firmware can draw progress for ever without a line break.
const maxLine = 16 << 10

var (
	cursorMove = regexp.MustCompile(`\x1b\[[0-9;]*[Hf]`)
	escape     = regexp.MustCompile(`\x1b(\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|[=>c])`)
)

// transcript cuts what is written to it into lines, keeps them, writes them with their times to a log, and wakes who
// waits for one.
type transcript struct {
	start time.Time
	log   io.Writer

	mu    sync.Mutex
	lines []Line
	part  []byte        // of the line that has not ended yet
	more  chan struct{} // closed and renewed when something was written
	ended bool
}

func newTranscript(log io.Writer) *transcript {
	return &transcript{start: time.Now(), log: log, more: make(chan struct{})}
}

// Write never fails: a full disk must not change what the process does.
func (t *transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.part = append(t.part, p...)
	for {
		line, rest, found := bytes.Cut(t.part[:min(len(t.part), maxLine)], []byte("\n"))
		if !found && len(line) < maxLine {
			t.wake()
			return len(p), nil
		}
		t.add(line)
		t.part = t.part[min(len(t.part), maxLine)-len(rest):]
	}
}

// end tells those who wait that nothing more will come.
func (t *transcript) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.add(t.part)
	t.part, t.ended = nil, true
	t.wake()
}

func (t *transcript) add(raw []byte) {
	at := time.Since(t.start)
	for _, text := range clean(raw) {
		t.lines = append(t.lines, Line{At: at, Text: text})
		fmt.Fprintf(t.log, "%8.2f %s\n", at.Seconds(), text)
	}
}

func (t *transcript) wake() {
	close(t.more)
	t.more = make(chan struct{})
}

// clean returns the readable text of a raw line: none, one or, where firmware moved the cursor, more lines.
func clean(raw []byte) []string {
	var lines []string
	for text := range strings.SplitSeq(cursorMove.ReplaceAllString(string(raw), "\n"), "\n") {
		text = render(escape.ReplaceAllString(text, ""))
		if text = strings.TrimRight(text, " "); text != "" {
			lines = append(lines, text)
		}
	}
	return lines
}

// render does what a terminal does with carriage returns and backspaces: firmware and iPXE draw their progress so.
func render(text string) string {
	var line []rune
	at := 0
	for _, r := range text {
		switch {
		case r == '\r':
			at = 0
			continue
		case r == '\b':
			at = max(0, at-1)
			continue
		case r == '\t':
			r = ' '
		case !unicode.IsPrint(r):
			continue
		}
		if at == len(line) {
			line = append(line, 0)
		}
		line[at] = r
		at++
	}
	return string(line)
}

func (t *transcript) all() []Line {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lines[:len(t.lines):len(t.lines)]
}

// now returns all lines, followed by the one that has not ended where unfinished is set; whole is the number without it.
func (t *transcript) now(unfinished bool) (lines []Line, whole int, more chan struct{}, ended bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	whole = len(t.lines)
	lines = t.lines[:whole:whole]
	if unfinished {
		for _, text := range clean(t.part) {
			lines = append(lines, Line{At: time.Since(t.start), Text: text})
		}
	}
	return lines, whole, t.more, t.ended
}

// waitFor returns the first line that matches, whether it has been written or is still to come.
func (t *transcript) waitFor(ctx context.Context, pattern *regexp.Regexp, unfinished bool) (Line, error) {
	for seen := 0; ; {
		lines, whole, more, ended := t.now(unfinished)
		for _, line := range lines[seen:] {
			if pattern.MatchString(line.Text) {
				return line, nil
			}
		}
		seen = whole
		if ended {
			return Line{}, fmt.Errorf("no line %q: %w%s", pattern, errEnded, tail(lines))
		}
		select {
		case <-more:
		case <-ctx.Done():
			lines, _, _, _ = t.now(true)
			return Line{}, fmt.Errorf("no line %q: %w%s", pattern, context.Cause(ctx), tail(lines))
		}
	}
}

// tail renders the last lines for an error: the reason nearly always stands in them.
func tail(lines []Line) string {
	if len(lines) == 0 {
		return "; it printed nothing"
	}
	var b strings.Builder
	b.WriteString("; last lines:")
	for _, line := range lines[max(0, len(lines)-8):] {
		fmt.Fprintf(&b, "\n%8.2f %s", line.At.Seconds(), line.Text)
	}
	return b.String()
}
