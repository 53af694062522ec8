package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nestboot/nestboot/integration/bench"
	"github.com/nestboot/nestboot/integration/lab"
)

const (
	blockSize = 1468
	clients   = 64
	many      = 10_000
	large     = 64_000_000
	fileName  = "file"
)

// benchmark is what all figures share.
type benchmark struct {
	out       io.Writer
	dir       string
	files     string // folder that the peers serve
	o         options
	materials lab.Materials
	size      int64
	bootd     *server
	peers     []*server
}

func newBench(ctx context.Context, out io.Writer, dir string, o options) (*benchmark, error) {
	m, err := lab.FindMaterials()
	if err != nil {
		return nil, err
	}
	b := &benchmark{out: out, dir: dir, files: filepath.Join(dir, "files"), o: o, materials: m}
	if err := os.Chmod(dir, 0o755); err != nil { // some servers change their user
		return nil, err
	}
	if err := os.Mkdir(b.files, 0o755); err != nil {
		return nil, err
	}
	var data []byte
	if b.bootd, data, err = b.startBootd(ctx, "bootd"); err != nil {
		return nil, err
	}
	b.size = int64(len(data))
	if err := os.WriteFile(filepath.Join(b.files, fileName), data, 0o644); err != nil {
		return nil, err
	}
	return b, b.startPeers(ctx)
}

func (b *benchmark) close() {
	for _, s := range append(b.peers, b.bootd) {
		s.stop()
	}
}

func (b *benchmark) versions() string {
	var names []string
	for _, p := range b.peers {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

// side is what the rounds of one server came to.
type side struct {
	*server
	rates  []float64 // MB/s
	costs  []float64 // CPU seconds of the server per GB
	shares []float64 // of the clients' core that the generator took
	failed int
	reason string
}

func (s *side) round(ctx context.Context, j job) error {
	before, err := s.meter.Used()
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	j.Server, j.File = s.addr, s.file
	t, err := load(ctx, j)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	after, err := s.meter.Used()
	if err != nil {
		return err
	}
	if t.Transfers == 0 {
		return fmt.Errorf("%s: no transfer was complete: %s", s.name, t.Error)
	}
	s.rates = append(s.rates, t.megabytes())
	s.costs = append(s.costs, (after-before).Seconds()/(float64(t.Bytes)/1e9))
	s.shares = append(s.shares, t.CPU.Seconds()/t.Took.Seconds())
	s.failed += t.Failed
	if s.reason == "" {
		s.reason = t.Error
	}
	return nil
}

func (s *side) String() string {
	return fmt.Sprintf("%-14s %6.1f MB/s, %.2f CPU s/GB, generator %.0f %% of its core, %d failed %s",
		s.name, bench.Median(s.rates), bench.Median(s.costs), 100*bench.Median(s.shares), s.failed, s.reason)
}

// race loads the servers A B C A B C …, after one round each that does not
// count.
func (b *benchmark) race(ctx context.Context, name string, j job, servers ...*server) ([]*side, error) {
	var sides []*side
	for _, s := range servers {
		sides = append(sides, &side{server: s})
	}
	for i := range b.o.rounds + 1 {
		for _, s := range sides {
			if err := s.round(ctx, j); err != nil {
				return nil, err
			}
			if i == 0 {
				*s = side{server: s.server, failed: s.failed, reason: s.reason}
			}
		}
	}
	for _, s := range sides {
		fmt.Fprintf(b.out, "bench-tftp: %s: %s\n", name, s)
	}
	return sides, nil
}

// compare makes a figure for each peer, and one for the best of them.
func compare(name string, sides []*side) []bench.Figure {
	ours, best := sides[0], bench.Figure{}
	var figures []bench.Figure
	for _, s := range sides[1:] {
		f := bench.Figure{
			Name: name, Unit: "MB/s", Peer: s.name, Counts: true, Failed: ours.failed,
			Ours: bench.Median(ours.rates), Theirs: bench.Median(s.rates),
		}
		if f.Theirs > best.Theirs {
			best = f
		}
		figures = append(figures, f)
	}
	best.Peer = "best"
	return append(figures, best)
}

// cost is the same for the servers' CPU; less is better.
func cost(name string, sides []*side) []bench.Figure {
	ours, best := sides[0], bench.Figure{}
	var figures []bench.Figure
	for _, s := range sides[1:] {
		f := bench.Figure{Name: name, Unit: "CPU-s/GB", Peer: s.name, Ours: bench.Median(ours.costs), Theirs: bench.Median(s.costs)}
		if best.Theirs == 0 || f.Theirs < best.Theirs {
			best = f
		}
		figures = append(figures, f)
	}
	best.Peer = "best"
	return append(figures, best)
}

func (b *benchmark) skip(name string) bool { return b.o.only != "" && b.o.only != name }

func (b *benchmark) windowed() []*server {
	list := []*server{b.bootd}
	for _, p := range b.peers {
		if p.windows {
			list = append(list, p)
		}
	}
	return list
}

func (b *benchmark) lockstep(ctx context.Context) ([]bench.Figure, error) {
	return b.crowd(ctx, "tftp_lock64", "tftp_cpu", 1, append([]*server{b.bootd}, b.peers...))
}

func (b *benchmark) win4(ctx context.Context) ([]bench.Figure, error) {
	return b.crowd(ctx, "tftp_win4", "tftp_win4_cpu", 4, b.windowed())
}

func (b *benchmark) win16(ctx context.Context) ([]bench.Figure, error) {
	return b.crowd(ctx, "tftp_win16", "tftp_win16_cpu", 16, b.windowed())
}

func (b *benchmark) crowd(ctx context.Context, name, cpu string, window int, servers []*server) ([]bench.Figure, error) {
	if b.skip(name) {
		return nil, nil
	}
	sides, err := b.race(ctx, name, job{Clients: clients, Block: blockSize, Window: window, Size: b.size, For: b.o.round}, servers...)
	if err != nil {
		return nil, err
	}
	return append(compare(name, sides), cost(cpu, sides)...), nil
}

// single is one client that loads one large file.
func (b *benchmark) single(ctx context.Context) ([]bench.Figure, error) {
	const name = "tftp_single_win64"
	if b.skip(name) {
		return nil, nil
	}
	path := filepath.Join(b.files, fileName)
	small, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	defer os.WriteFile(path, small, 0o644) //nolint:errcheck // the next figure would tell
	if err := os.WriteFile(path, make([]byte, large), 0o644); err != nil {
		return nil, err
	}
	engine, err := b.startEngine(ctx)
	if err != nil {
		return nil, err
	}
	defer engine.stop()
	servers := append([]*server{engine}, b.windowed()[1:]...)
	sides, err := b.race(ctx, name, job{Clients: 1, Block: blockSize, Window: 64, Size: large}, servers...)
	if err != nil {
		return nil, err
	}
	return append(compare(name, sides), cost(name+"_cpu", sides)...), nil
}

// concurrent has many clients wait for each other with their first block, so
// that all transfers are under way at the same moment.
func (b *benchmark) concurrent(ctx context.Context) ([]bench.Figure, error) {
	const name = "tftp_concurrent10k"
	if b.skip(name) {
		return nil, nil
	}
	s, _, err := b.startBootd(ctx, "bootd-many")
	if err != nil {
		return nil, err
	}
	defer s.stop()
	before, err := memory(s.pid, "VmRSS")
	if err != nil {
		return nil, err
	}
	began := time.Now()
	t, err := load(ctx, job{Server: s.addr, File: s.file, Clients: many, Block: blockSize, Window: 1, Size: b.size, Hold: true})
	if err != nil {
		return nil, err
	}
	peak, err := memory(s.pid, "VmHWM")
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(b.out, "bench-tftp: %s: %d transfers in %s, %.1f MB/s, %d failed %s; %d packets repeated; resident memory %d KiB before, %d at most\n",
		name, t.Transfers, time.Since(began).Round(time.Millisecond), t.megabytes(), t.Failed, t.Error, t.Repeats, before, peak)
	return []bench.Figure{
		{Name: name, Ours: t.megabytes(), Unit: "MB/s", Counts: true, Failed: t.Failed},
		{Name: name + "_memory", Ours: float64(peak-before) / many, Unit: "KiB-each"},
	}, nil
}

// memory reads a line of /proc/<pid>/status, in KiB.
func memory(pid int, field string) (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == field+":" {
			return strconv.Atoi(f[1])
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", pid, field)
}
