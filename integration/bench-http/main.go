// Command bench-http measures what it costs bootd to send images: processor
// time per gigabyte, plain and over TLS, against nginx as Debian builds it, in
// turn, each server on one core and the clients on another. And what a crowd of
// slow clients takes from fast ones, and from a machine that boots beside them.
// It prints lines in the project's format for benchmarks and appends them to
// docs/performance.md when BENCH_SAVE=1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/nestboot/nestboot/integration/bench"
	"github.com/nestboot/nestboot/integration/lab"
)

// limit is for the whole bench, which takes three minutes.
const limit = 15 * time.Minute

// pinned is the environment variable by which the program knows that it runs on
// the clients' core.
const pinned = "NESTBOOT_BENCH_PINNED"

type options struct {
	bootd, nestctl string
	rounds         int
	size           int64
	slow           int
	round          time.Duration
	only           string
}

func main() {
	o := options{}
	flag.StringVar(&o.bootd, "bootd", ".bin/bootd", "the `program` under test")
	flag.StringVar(&o.nestctl, "nestctl", ".bin/nestctl", "the operator's `program`")
	flag.IntVar(&o.rounds, "rounds", 7, "rounds of each server")
	flag.Int64Var(&o.size, "size", 400_000_000, "`bytes` of the image")
	flag.IntVar(&o.slow, "slow", 1000, "how many slow clients there are")
	flag.DurationVar(&o.round, "round", 3*time.Second, "length of a round beside slow clients")
	flag.StringVar(&o.only, "only", "", "the one `figure` to measure")
	flag.Parse()
	o.rounds = max(o.rounds, 1)
	if err := pin(); err != nil {
		fmt.Fprintln(os.Stderr, "bench-http:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := run(ctx, os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-http:", err)
		os.Exit(1)
	}
}

// pin starts the program again on the clients' core, where it is not there yet.
func pin() error {
	if os.Getenv(pinned) != "" {
		return nil
	}
	if runtime.NumCPU() < 2 {
		return errors.New("two cores are needed: one for the server, one for the clients")
	}
	taskset, err := exec.LookPath("taskset")
	if err != nil {
		return fmt.Errorf("%w (make lab installs it)", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := append([]string{"taskset", "-c", clientCore, self}, os.Args[1:]...)
	return syscall.Exec(taskset, args, append(os.Environ(), pinned+"=1"))
}

func run(ctx context.Context, out io.Writer, o options) (err error) {
	m, err := lab.FindMaterials()
	if err != nil {
		return err
	}
	peer, whole, err := nginxVersion(ctx, m)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "nestboot-bench-http-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	fmt.Fprintf(out, "bench-http: bootd (%s) and %s, each on core %s, clients on core %s, loopback; one file of %d MB, in the page cache;\n"+
		"bench-http: TLS 1.2, ECDHE, AES-128-GCM, P-256; %d rounds in turn, medians; the time is the servers', of the control group where there is one\n",
		runtime.Version(), whole, serverCore, clientCore, o.size/1_000_000, o.rounds)
	b := &benchmark{out: out, dir: dir, o: o, materials: m, peer: peer}
	if err := b.start(ctx); err != nil {
		return err
	}
	defer b.close()
	figures, err := b.measure(ctx)
	if err != nil {
		return err
	}
	return bench.Report(ctx, out, figures...)
}
