// Command bench-revoke measures how long a revoked credential goes on working:
// bootd as it is built, on loopback, with many open connections of the
// credential, some idle, some asking, some in the middle of a download. It
// prints lines in the project's format for benchmarks and appends them to
// docs/performance.md when BENCH_SAVE=1.
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

	"github.com/nestboot/nestboot/integration/bench"
	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/rig"
)

type options struct {
	bootd, nestctl string
	conns          int
}

func main() {
	o := options{}
	flag.StringVar(&o.bootd, "bootd", ".bin/bootd", "the `program` under test")
	flag.StringVar(&o.nestctl, "nestctl", ".bin/nestctl", "the operator's `program`")
	flag.IntVar(&o.conns, "conns", 1000, "open connections of a credential")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-revoke:", err)
		os.Exit(1)
	}
}

// imageSize is more than the kernel's buffers of a connection hold: a client
// that reads no further keeps its download running.
const imageSize = 64 << 20

func run(ctx context.Context, out io.Writer, o options) (err error) {
	dir, err := os.MkdirTemp("", "nestboot-bench-revoke-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	base, err := newestBase()
	if err != nil {
		return err
	}
	server, err := rig.Loopback{Dir: dir, Bootd: o.bootd, Nestctl: o.nestctl, Image: imageSize, Base: base}.Start(ctx)
	if err != nil {
		return err
	}
	defer server.Close()
	fmt.Fprintf(out, "bench-revoke: bootd (%s) on loopback, %d cores; %d open connections of each credential in turn: half idle, a third in\n"+
		"bench-revoke: mid-download, the rest asking four times a second; from the start of the operator's command to the last connection closed\n"+
		"bench-revoke: or the last good answer, and to a new connection refused\n", runtime.Version(), runtime.GOMAXPROCS(0), o.conns)
	worst := bench.Figure{Name: "revoke_refuse", Unit: "ms", Counts: true}
	for _, kind := range kinds() {
		r, err := measure(ctx, server, kind, o.conns)
		if err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
		fmt.Fprintf(out, "%s: %s\n", kind.name, r)
		worst.Ours = max(worst.Ours, bench.Milliseconds(r.worst()))
		worst.Failed += r.late
	}
	return bench.Report(ctx, out, worst)
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
