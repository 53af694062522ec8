// Command bench-script measures how many questions of machines bootd answers:
// /ipxe/boot and /ipxe/ignition, with few and with many machines known. The
// clients run on the same cores. It prints lines in the project's format for
// benchmarks and appends them to docs/performance.md when BENCH_SAVE=1.
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

// limit is for the whole bench.
const limit = 30 * time.Minute

type options struct {
	bootd, nestctl string
	few, many      int
	rounds         int
	conns          int
}

func main() {
	o := options{}
	flag.StringVar(&o.bootd, "bootd", ".bin/bootd", "the `program` under test")
	flag.StringVar(&o.nestctl, "nestctl", ".bin/nestctl", "the operator's `program`")
	flag.IntVar(&o.few, "few", 1000, "`number` of machines known at first")
	flag.IntVar(&o.many, "many", 100_000, "`number` of machines known then; 0: leave that out")
	flag.IntVar(&o.rounds, "rounds", 7, "rounds of each question")
	flag.IntVar(&o.conns, "conns", 240, "connections: bootd allows 256 of one address, which a grant is bound to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := run(ctx, os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-script:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, o options) (err error) {
	dir, err := os.MkdirTemp("", "nestboot-bench-script-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	base, err := newestBase()
	if err != nil {
		return err
	}
	server, err := rig.Loopback{Dir: dir, Bootd: o.bootd, Nestctl: o.nestctl, Image: 3, Base: base, Unread: true}.Start(ctx)
	if err != nil {
		return err
	}
	defer server.Close()
	fmt.Fprintf(out, "bench-script: bootd (%s) on loopback, %d cores, which the clients share; %d connections, kept alive; medians of %d rounds\n"+
		"bench-script: of %d requests. boot: TLS 1.2 with a set's certificate, each request of another machine, whose boot it begins anew.\n"+
		"bench-script: ignition: TLS 1.3; grants are made before the round, %d of them, and each is redeemed %d times, as often as it may be\n",
		runtime.Version(), runtime.GOMAXPROCS(0), o.conns, o.rounds, perRound, perRound/redeems, redeems)
	b, err := newBench(ctx, server, o)
	if err != nil {
		return err
	}
	var figures []bench.Figure
	for _, n := range []int{o.few, o.many} {
		if n == 0 {
			continue
		}
		f, err := b.measure(ctx, out, n)
		if err != nil {
			return fmt.Errorf("%d machines: %w", n, err)
		}
		figures = append(figures, f...)
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
