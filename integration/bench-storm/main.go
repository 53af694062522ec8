// Command bench-storm powers on many machines at once against a bootd of its
// own on loopback, and watches what that costs the server in time, memory and
// processor. It prints lines in the project's format for benchmarks and appends
// them to docs/performance.md when BENCH_SAVE=1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/nestboot/nestboot/integration/bench"
	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/rig"
)

// limit is for the whole bench, which takes about five minutes.
const limit = 20 * time.Minute

type options struct {
	bootd, nestctl string
	storms         []size
	spread         time.Duration
}

// size is one storm.
type size struct {
	machines       int
	kernel, initrd int64 // bytes
}

func main() {
	o := options{}
	var s size
	flag.StringVar(&o.bootd, "bootd", ".bin/bootd", "the `program` under test")
	flag.StringVar(&o.nestctl, "nestctl", ".bin/nestctl", "the operator's `program`")
	flag.IntVar(&s.machines, "machines", 0, "power on this `number` of machines; 0: 1,000 and then 5,000 with small images")
	flag.Int64Var(&s.kernel, "kernel", 4<<20, "`bytes` of the kernel, with -machines")
	flag.Int64Var(&s.initrd, "initrd", 12<<20, "`bytes` of the initrd, with -machines")
	flag.DurationVar(&o.spread, "spread", 0, "`time` within which machines are powered on; 0: all at once")
	flag.Parse()
	o.storms = []size{s}
	if s.machines == 0 {
		o.storms = []size{{1000, 4 << 20, 12 << 20}, {5000, 64 << 10, 256 << 10}}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := run(ctx, os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-storm:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, o options) error {
	base, err := newestBase()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "bench-storm: bootd (%s) on loopback, %d cores, which the machines share; each machine has an address of its own and\n"+
		"bench-storm: goes from TFTP (OVMF: size probe, then windows of 4) over mutual TLS 1.2 (RSA-2048, iPXE), script, kernel, initrd and its own\n"+
		"bench-storm: initrd to Ignition and phone-home (TLS 1.3 each); every size and SHA-256 is checked; all powered on within %s\n",
		runtime.Version(), runtime.GOMAXPROCS(0), o.spread)
	var figures []bench.Figure
	for _, s := range o.storms {
		f, err := measure(ctx, out, s, o, base)
		if err != nil {
			return fmt.Errorf("%d machines: %w", s.machines, err)
		}
		figures = append(figures, f)
	}
	return bench.Report(ctx, out, figures...)
}

// newestBase is the package of the newest iPXE in the lab's materials.
func newestBase() (string, error) {
	m, err := lab.FindMaterials()
	if err != nil {
		return "", err
	}
	for _, deb := range m.Debs() {
		if strings.Contains(deb, "/forky/ipxe_") {
			return deb, nil
		}
	}
	return "", errors.New("the materials have no newer iPXE: make deps")
}

// measure makes one storm on a server of its own.
func measure(ctx context.Context, out io.Writer, s size, o options, base string) (f bench.Figure, err error) {
	if err := enoughFiles(s.machines); err != nil {
		return f, err
	}
	dir, err := os.MkdirTemp("", "nestboot-bench-storm-")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := rig.Loopback{
		Dir: dir, Bootd: o.bootd, Nestctl: o.nestctl, Image: s.kernel, Initrd: s.initrd, Base: base,
	}.Start(ctx)
	if err != nil {
		return f, err
	}
	defer server.Close()
	return blow(ctx, out, server, s, o.spread)
}

// enoughFiles checks that this process may open what a storm needs: a machine
// has one socket at a time. Go raises the soft limit to the hard one at the
// start, here and in bootd.
func enoughFiles(machines int) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	if need := uint64(machines) + 200; l.Cur < need {
		return fmt.Errorf("%d file descriptors are needed and %d allowed: ulimit -Hn %d", need, l.Cur, need)
	}
	return nil
}
