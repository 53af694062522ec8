// Command bench-tftp measures bootd's TFTP server as it is built against
// others: dnsmasq, tftpd-hpa 5.2 and 7.x as Debian builds them, and the Go
// library pin/tftp. Each server has one core, the clients have another one. It
// prints lines in the project's format for benchmarks and appends them to
// docs/performance.md when BENCH_SAVE=1.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/nestboot/nestboot/integration/bench"
	"github.com/nestboot/nestboot/integration/lab"
)

// limit is for the whole bench, which takes five minutes.
const limit = 15 * time.Minute

// serverCore is where the servers run, one at work at a time; the clients run on
// clientCore.
const (
	serverCore = "0"
	clientCore = "1"
)

func main() {
	var err error
	if asked := os.Getenv(generator); asked != "" {
		err = generate(asked, os.Stdout)
	} else {
		err = start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-tftp:", err)
		os.Exit(1)
	}
}

type options struct {
	bin    string // folder with our programs
	rounds int
	round  time.Duration
	only   string
}

func start() error {
	var o options
	flag.StringVar(&o.bin, "bin", ".bin", "the `folder` of bootd, nestctl, pin-tftpd and engine-tftpd")
	flag.IntVar(&o.rounds, "rounds", 7, "rounds of each server")
	flag.DurationVar(&o.round, "round", 1500*time.Millisecond, "length of a round")
	flag.StringVar(&o.only, "only", "", "the one `figure` to measure")
	flag.Parse()
	// A network of our own: dnsmasq knows no port but 69. And whatever a server
	// forks ends with the bench.
	if err := lab.Enter(); err != nil {
		return err
	}
	if runtime.NumCPU() < 2 {
		return fmt.Errorf("two cores are needed: one for the servers, one for the clients")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	dir, err := os.MkdirTemp("", "nestboot-bench-tftp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	return run(ctx, os.Stdout, dir, o)
}

func run(ctx context.Context, out io.Writer, dir string, o options) error {
	if err := lab.Loopback(ctx); err != nil {
		return err
	}
	// tftp-hpa asks the resolver for its own address with AI_ADDRCONFIG, and is
	// told of none on a host that has nothing but 127.0.0.1.
	if added, err := exec.CommandContext(ctx, "ip", "address", "add", "192.0.2.1/32", "dev", "lo").CombinedOutput(); err != nil {
		return fmt.Errorf("add an address to loopback: %w: %s", err, added)
	}
	b, err := newBench(ctx, out, dir, o)
	if err != nil {
		return err
	}
	defer b.close()
	fmt.Fprintf(out, "bench-tftp: bootd (%s), %s, each on core %s, clients on core %s, loopback;\n"+
		"bench-tftp: one file of %.1f MB, blksize %d, %d rounds of %s each in turn, medians; MB/s is what the clients got by the clock\n",
		runtime.Version(), b.versions(), serverCore, clientCore, float64(b.size)/1e6, blockSize, o.rounds, o.round)
	var figures []bench.Figure
	for _, m := range []func(context.Context) ([]bench.Figure, error){b.lockstep, b.win4, b.win16, b.single, b.concurrent} {
		f, err := m(ctx)
		if err != nil {
			return err
		}
		figures = append(figures, f...)
	}
	return bench.Report(ctx, out, figures...)
}
