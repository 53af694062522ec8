package boot

import (
	"fmt"
	"strings"
	"time"
)

// maxFollowed is of how many boots the first time is remembered.
const maxFollowed = 10_000

// Timeline prints events one line each, with the time since the first one of
// the same boot. Its zero value is ready; it is not safe for concurrent use.
type Timeline struct {
	start map[string]time.Time
}

// Line is the event as one line of text without a newline: seconds since the
// boot's first event, stage, duration, size, what it was about, by what
// credential if it failed, and how it ended. Bytes that a terminal would interpret are replaced.
func (t *Timeline) Line(e Event) string {
	if t.start == nil {
		t.start = map[string]time.Time{}
	}
	key := e.Boot
	if key == "" {
		key = e.Addr.String()
	}
	if len(t.start) > maxFollowed { // a stream that is followed for months
		clear(t.start)
	}
	if _, ok := t.start[key]; !ok {
		t.start[key] = e.Time
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%8.3fs  %-14s %9s %10s  %-15s", e.Time.Sub(t.start[key]).Seconds(), e.Stage, duration(e.Duration), size(e.Bytes), addr(e))
	shown := ""
	if e.Failed() { // which of several was refused
		shown = e.Credential
	}
	for _, s := range []string{e.Name, shown, e.Detail, e.Code, e.Error} {
		if s != "" {
			b.WriteString("  " + onePrintableLine(s))
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// Heading names the columns of Line.
func Heading() string {
	return fmt.Sprintf("%9s  %-14s %9s %10s  %-15s  %s", "AT", "STAGE", "TOOK", "BYTES", "ADDRESS", "WHAT")
}

func addr(e Event) string {
	if !e.Addr.IsValid() {
		return "-"
	}
	return e.Addr.String()
}

func duration(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Second:
		return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.2fs", d.Seconds())
}

func size(n int64) string {
	switch {
	case n == 0:
		return "-"
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
