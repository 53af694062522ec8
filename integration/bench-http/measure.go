package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/nestboot/nestboot/integration/bench"
	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/rig"
)

// atOnce is how many clients download in a round, and fast how many do beside
// the slow ones.
const (
	atOnce = 4
	fast   = 10
)

// benchmark is what all figures share.
type benchmark struct {
	out       io.Writer
	dir       string
	o         options
	materials lab.Materials
	peer      string
	bootd     *rig.LoopbackServer
	nginx     *lab.Proc
	chain     string // path of the chain URL, where a boot begins
	ours      *server
	theirs    *server
}

func (b *benchmark) measure(ctx context.Context) ([]bench.Figure, error) {
	var figures []bench.Figure
	for _, m := range []struct {
		name string
		f    func(context.Context, string) (bench.Figure, error)
	}{
		{"http_plain", b.cost},
		{"http_tls", b.cost},
		{"http_slow_plain", b.besideSlow},
		{"http_slow_tls", b.besideSlow},
		{"http_slow_boot", b.bootBesideSlow},
	} {
		if b.o.only != "" && b.o.only != m.name {
			continue
		}
		f, err := m.f(ctx, m.name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		figures = append(figures, f)
	}
	return figures, nil
}

// to is what a figure asks a server for.
func (s *server) to(figure string) target {
	if figure == "http_tls" || figure == "http_slow_tls" || figure == "http_slow_boot" {
		return s.tls
	}
	return s.plain
}

// cost is the servers' processor time per gigabyte.
func (b *benchmark) cost(ctx context.Context, name string) (bench.Figure, error) {
	costs, rates := map[*server][]float64{}, map[*server][]float64{}
	sides := []*server{b.ours, b.theirs}
	for i := range b.o.rounds + 1 {
		for _, s := range sides {
			cost, rate, err := s.round(ctx, name)
			if err != nil {
				return bench.Figure{}, fmt.Errorf("%s: %w", s.name, err)
			}
			if i > 0 { // the first one fills caches
				costs[s], rates[s] = append(costs[s], cost), append(rates[s], rate)
			}
		}
	}
	for _, s := range sides {
		fmt.Fprintf(b.out, "bench-http: %s: %s: %.3f CPU s/GB (%.3f to %.3f), %.0f MB/s by the clock\n",
			name, s.name, bench.Median(costs[s]), slices.Min(costs[s]), slices.Max(costs[s]), bench.Median(rates[s])/1e6)
	}
	return bench.Figure{
		Name: name, Unit: "CPU-s/GB", Peer: b.peer, Counts: true,
		Ours: bench.Median(costs[b.ours]), Theirs: bench.Median(costs[b.theirs]),
	}, nil
}

// round downloads the file by several clients and notes what it cost.
func (s *server) round(ctx context.Context, figure string) (cost, rate float64, err error) {
	before, err := s.meter.Used()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	got, err := downloads(ctx, s.to(figure), atOnce)
	if err != nil {
		return 0, 0, err
	}
	took := time.Since(start)
	after, err := s.meter.Used()
	if err != nil {
		return 0, 0, err
	}
	return (after - before).Seconds() / (float64(got) / 1e9), float64(got) / took.Seconds(), nil
}

// besideSlow is which part of what fast clients get they lose beside slow ones:
// bytes per second of the server's processor time, which other work on the
// machine does not change. The server's core is busy all the time, so by the
// clock of a quiet machine it is the same.
func (b *benchmark) besideSlow(ctx context.Context, name string) (f bench.Figure, err error) {
	lost, failed := map[*server]float64{}, 0
	for _, s := range []*server{b.ours, b.theirs} {
		var alone, beside tally
		for range max(2, b.o.rounds/2) {
			if err := alone.add(ctx, s, name, b.o.round); err != nil {
				return f, err
			}
			slow, err := gather(ctx, s.to(name), b.o.slow)
			if err != nil {
				return f, fmt.Errorf("%s: %w", s.name, err)
			}
			err = beside.add(ctx, s, name, b.o.round)
			if broken := slow.end(); s == b.ours {
				failed += broken
			}
			if err != nil {
				return f, err
			}
		}
		lost[s] = 100 * (1 - bench.Median(beside.byCPU)/bench.Median(alone.byCPU))
		fmt.Fprintf(b.out, "bench-http: %s: %s: %d fast clients got %.0f MB per CPU second alone, %.0f beside %d slow ones: %.1f %% lost; by the clock %.0f and %.0f MB/s\n",
			name, s.name, fast, bench.Median(alone.byCPU)/1e6, bench.Median(beside.byCPU)/1e6, b.o.slow, lost[s],
			bench.Median(alone.byClock)/1e6, bench.Median(beside.byClock)/1e6)
	}
	return bench.Figure{Name: name, Unit: "%lost", Ours: lost[b.ours], Counts: true, Failed: failed}, nil
}

// tally is what fast clients got, in bytes per second.
type tally struct{ byCPU, byClock []float64 }

func (t *tally) add(ctx context.Context, s *server, figure string, d time.Duration) error {
	before, err := s.meter.Used()
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	got, took, err := repeated(ctx, s.to(figure), fast, d)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	after, err := s.meter.Used()
	t.byCPU = append(t.byCPU, float64(got)/(after-before).Seconds())
	t.byClock = append(t.byClock, float64(got)/took.Seconds())
	return err
}
