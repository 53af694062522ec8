package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/nestboot/nestboot/integration/bench"
	"github.com/nestboot/nestboot/integration/rig"
	"github.com/nestboot/nestboot/integration/storm"
)

// How long the server has to be idle again after the last machine.
const (
	idleWithin = 3 * time.Minute
	lookEvery  = 100 * time.Millisecond
	// nearly is how close to before "as before" is.
	nearly = 1.1
)

// blow makes the storm and prints what it did.
func blow(ctx context.Context, out io.Writer, server *rig.LoopbackServer, s size, spread time.Duration) (f bench.Figure, err error) {
	c, err := storm.Prepare(ctx, server)
	if err != nil {
		return f, err
	}
	c.Machines, c.Spread = s.machines, spread
	pid := server.Proc.Pid()
	before, err := look(pid)
	if err != nil {
		return f, err
	}
	mine, err := bench.CPU(os.Getpid())
	if err != nil {
		return f, err
	}
	stop := watchPeak(pid)
	r := storm.Run(ctx, c)
	peak, err := stop()
	if err != nil {
		return f, err
	}
	end, err := look(pid)
	if err != nil {
		return f, err
	}
	now, err := bench.CPU(os.Getpid())
	if err != nil {
		return f, err
	}
	fmt.Fprintf(out, "%d machines, kernel %d KiB, initrd %d KiB, loader %d KiB\n", s.machines, s.kernel>>10, s.initrd>>10, c.Loader.Size>>10)
	if err := r.Print(out); err != nil {
		return f, err
	}
	used, load := end.cpu-before.cpu, now-mine
	fmt.Fprintf(out, "processor: bootd %.1f s (%.2f ms a machine), machines %.1f s (%.0f %% of both)\n",
		used.Seconds(), bench.Milliseconds(used)/float64(s.machines), load.Seconds(), 100*load.Seconds()/(load+used).Seconds())
	after, took, err := settle(ctx, pid, before)
	if err != nil {
		return f, err
	}
	fmt.Fprintf(out, "bootd before: %s\nbootd at peak: %s\nbootd %s after: %s\n", before, peak, took.Round(time.Second), after)
	return bench.Figure{
		Name: fmt.Sprintf("storm_%d", s.machines), Ours: bench.Milliseconds(r.Total(99)), Unit: "ms", Failed: r.Failed(), Counts: true,
	}, nil
}

// state is what a process holds.
type state struct {
	memory bench.Memory
	files  int
	cpu    time.Duration
}

func (s state) String() string {
	return fmt.Sprintf("%d MiB resident, %d of them its own, %d files", s.memory.Resident>>20, s.memory.Anonymous>>20, s.files)
}

func look(pid int) (s state, err error) {
	if s.memory, err = bench.MemoryOf(pid); err != nil {
		return s, err
	}
	if s.files, err = bench.Files(pid); err != nil {
		return s, err
	}
	s.cpu, err = bench.CPU(pid)
	return s, err
}

// watchPeak notes the most that a process holds until stop is called.
func watchPeak(pid int) (stop func() (state, error)) {
	ctx, cancel := context.WithCancel(context.Background())
	var peak state
	var failed error
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			now, err := look(pid)
			if err != nil {
				failed = err
				return
			}
			peak.memory.Resident = max(peak.memory.Resident, now.memory.Resident)
			peak.memory.Anonymous = max(peak.memory.Anonymous, now.memory.Anonymous)
			peak.files = max(peak.files, now.files)
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return func() (state, error) {
		cancel()
		running.Wait()
		return peak, failed
	}
}

// settle waits until the server holds nearly as much as before, and returns
// what it holds then, or when it has had its time.
func settle(ctx context.Context, pid int, before state) (after state, took time.Duration, err error) {
	start := time.Now()
	for {
		after, err = look(pid)
		took = time.Since(start)
		calm := float64(after.memory.Resident) <= nearly*float64(before.memory.Resident) && after.files <= before.files
		if err != nil || calm || took > idleWithin {
			return after, took, err
		}
		select {
		case <-ctx.Done():
			return after, took, ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}
