package main

import (
	"fmt"
	"os"
	"time"

	"github.com/nestboot/nestboot/integration/bench"
)

// result is what some requests came to, and what they cost.
type result struct {
	requests, failed int
	first            error // of those that failed
	took             time.Duration
	server, clients  time.Duration // CPU

	pid   int
	start time.Time
}

// newResult begins to measure; pid is the server's.
func newResult(pid, requests int) (r *result, err error) {
	r = &result{requests: requests, pid: pid}
	if err := r.read(-1); err != nil {
		return nil, err
	}
	r.start = time.Now()
	return r, nil
}

func (r *result) end() error {
	r.took = time.Since(r.start)
	return r.read(1)
}

func (r *result) read(sign time.Duration) error {
	server, err := bench.CPU(r.pid)
	if err != nil {
		return err
	}
	clients, err := bench.CPU(os.Getpid())
	r.server, r.clients = r.server+sign*server, r.clients+sign*clients
	return err
}

// Err is the first failure of a request.
func (r *result) Err() error {
	if r == nil || r.failed == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d requests failed, the first: %w", r.failed, r.requests, r.first)
}

// rounds are those of one question.
type rounds struct {
	name         string
	rates        []float64       // requests per second
	costs, loads []time.Duration // CPU per request: of the server, of the clients
	failed       int
	first        error
}

func (r *rounds) add(one *result, count bool) {
	r.failed += one.failed
	if r.first == nil {
		r.first = one.first
	}
	if count {
		n := time.Duration(one.requests)
		r.rates = append(r.rates, float64(n)/one.took.Seconds())
		r.costs, r.loads = append(r.costs, one.server/n), append(r.loads, one.clients/n)
	}
}

func (r *rounds) String() string {
	cost, load := bench.Median(r.costs), bench.Median(r.loads)
	s := fmt.Sprintf("%s: %.0f requests/s by the clock; %d µs of bootd's CPU per request and %d µs of the clients': %.0f/s if both cores did nothing else",
		r.name, bench.Median(r.rates), cost.Microseconds(), load.Microseconds(), 2/(cost+load).Seconds())
	if r.failed > 0 {
		s += fmt.Sprintf("; %d failed, the first: %v", r.failed, r.first)
	}
	return s
}

func (r *rounds) figure(name string) bench.Figure {
	return bench.Figure{Name: name, Ours: bench.Median(r.rates), Unit: "req/s", Failed: r.failed, Counts: true}
}
