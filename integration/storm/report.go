package storm

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// outcome is what became of one machine.
type outcome struct {
	took   map[Stage]time.Duration // of the stages that it completed
	total  time.Duration           // power-on to done
	waits  int                     // how often it was told to wait
	waited time.Duration
	failed Stage // empty: it booted
	err    error
}

// Report is what became of all machines.
type Report struct {
	Machines, Booted int
	Took             time.Duration // until the last one was at its end
	Waits            int           // how often machines were told to wait; that is no failure
	Waited           time.Duration // by all together
	Failures         map[Stage]Failure
	stages           map[Stage][]time.Duration // sorted
	totals           []time.Duration           // of those that booted, sorted
}

// Failure is how many machines failed in a stage, and why the first did.
type Failure struct {
	Machines int
	First    error
}

func newReport(all []outcome, took time.Duration) Report {
	r := Report{Machines: len(all), Took: took, Failures: map[Stage]Failure{}, stages: map[Stage][]time.Duration{}}
	for _, o := range all {
		r.Waits += o.waits
		r.Waited += o.waited
		for stage, d := range o.took {
			r.stages[stage] = append(r.stages[stage], d)
		}
		if o.err == nil {
			r.Booted++
			r.totals = append(r.totals, o.total)
			continue
		}
		f := r.Failures[o.failed]
		f.Machines++
		if f.First == nil {
			f.First = o.err
		}
		r.Failures[o.failed] = f
	}
	slices.Sort(r.totals)
	for _, d := range r.stages {
		slices.Sort(d)
	}
	return r
}

// Failed is how many machines did not boot.
func (r Report) Failed() int { return r.Machines - r.Booted }

// Total is the p-th percentile of power-on to done, of the machines that
// booted; waiting that they were told is part of it.
func (r Report) Total(p int) time.Duration { return percentile(r.totals, p) }

// Stage is the p-th percentile of one stage's time.
func (r Report) Stage(s Stage, p int) time.Duration { return percentile(r.stages[s], p) }

// Err tells every stage's first failure; nil when all machines have booted.
func (r Report) Err() error {
	var errs []error
	for _, s := range Stages() {
		if f := r.Failures[s]; f.Machines > 0 {
			errs = append(errs, fmt.Errorf("%d machines failed at %s, the first: %w", f.Machines, s, f.First))
		}
	}
	return errors.Join(errs...)
}

// Print writes a table of the stages.
func (r Report) Print(w io.Writer) error {
	rows := fmt.Sprintf("%-10s %10s %10s %8s\n", "stage", "p50", "p99", "failed")
	for _, s := range Stages() {
		rows += fmt.Sprintf("%-10s %10s %10s %8d\n", s, short(r.Stage(s, 50)), short(r.Stage(s, 99)), r.Failures[s].Machines)
	}
	rows += fmt.Sprintf("%-10s %10s %10s %8d\n", "in all", short(r.Total(50)), short(r.Total(99)), r.Failed())
	rows += fmt.Sprintf("%d of %d machines booted in %s; told to wait %d times, %s each on average\n",
		r.Booted, r.Machines, short(r.Took), r.Waits, short(r.Waited/time.Duration(max(r.Waits, 1))))
	if err := r.Err(); err != nil {
		rows += err.Error() + "\n"
	}
	_, err := io.WriteString(w, rows)
	return err
}

func short(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// percentile is the value that p per cent of the sorted ones do not exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min((len(sorted)*p+99)/100, len(sorted))-1]
}
