// Package bench has what the project's benchmarks share: one format of their
// figures, medians, and the file in which figures are kept.
package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// results is where figures are kept, from the root of the project.
const results = "docs/performance.md"

// Figure is one measured number, and that of a peer from the same run.
type Figure struct {
	Name   string
	Ours   float64
	Unit   string
	Peer   string // name-version; none when empty
	Theirs float64
	Failed int // how many failed; shown when it is known
	Counts bool
}

func (f Figure) String() string {
	s := fmt.Sprintf("BENCH name=%s ours=%s unit=%s", f.Name, number(f.Ours), f.Unit)
	if f.Peer != "" {
		s += fmt.Sprintf(" peer=%s theirs=%s ratio=%.2f", f.Peer, number(f.Theirs), f.Ours/f.Theirs)
	}
	if f.Counts {
		s += fmt.Sprintf(" failed=%d", f.Failed)
	}
	return s
}

// number has one decimal where that says enough, and three where it does not, as
// with CPU seconds per GB.
func number(v float64) string {
	if short := math.Round(v*10) / 10; math.Abs(short-v) <= math.Abs(v)/200 || math.Abs(v) >= 10 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// Report prints the figures, one a line, and appends them with date and commit
// to docs/performance.md when BENCH_SAVE=1.
func Report(ctx context.Context, out io.Writer, figures ...Figure) error {
	var lines strings.Builder
	for _, f := range figures {
		lines.WriteString(f.String() + "\n")
	}
	if _, err := io.WriteString(out, lines.String()); err != nil {
		return err
	}
	if os.Getenv("BENCH_SAVE") != "1" {
		return nil
	}
	return save(ctx, lines.String())
}

func save(ctx context.Context, lines string) error {
	commit, err := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return fmt.Errorf("name the commit: %w", err)
	}
	f, err := os.OpenFile(results, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "\n```\n%s %s, %d cores\n%s```\n",
		time.Now().UTC().Format(time.DateOnly), strings.TrimSpace(string(commit)), runtime.NumCPU(), lines)
	return errors.Join(err, f.Close())
}

// Median is the middle of the values; of an even number the upper one.
func Median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// Milliseconds is a duration as figures have it.
func Milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
