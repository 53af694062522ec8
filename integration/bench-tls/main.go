// Command bench-tls measures full handshakes of mutual TLS: bootd as it is
// built against nginx as Debian builds it, in turn, each on one core with the
// same certificates, the clients on another core. It prints lines in the
// project's format for benchmarks and appends them to docs/performance.md when
// BENCH_SAVE=1.
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
	"github.com/nestboot/nestboot/integration/customer"
	"github.com/nestboot/nestboot/integration/lab"
)

// limit is for the whole bench, which takes three minutes.
const limit = 10 * time.Minute

// pinned is the environment variable by which the program knows that it runs on
// the clients' core.
const pinned = "NESTBOOT_BENCH_PINNED"

func main() {
	o := options{}
	flag.StringVar(&o.bootd, "bootd", ".bin/bootd", "the `program` under test")
	flag.StringVar(&o.nestctl, "nestctl", ".bin/nestctl", "the operator's `program`")
	flag.IntVar(&o.rounds, "rounds", 9, "rounds of each server")
	flag.DurationVar(&o.round, "round", 2*time.Second, "length of a round")
	flag.Parse()
	o.rounds = max(o.rounds, 3)
	if err := pin(); err != nil {
		fmt.Fprintln(os.Stderr, "bench-tls:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := run(ctx, os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-tls:", err)
		os.Exit(1)
	}
}

type options struct {
	bootd, nestctl string
	rounds         int
	round          time.Duration
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

func run(ctx context.Context, out io.Writer, o options) error {
	m, err := lab.FindMaterials()
	if err != nil {
		return err
	}
	peer, whole, err := nginxVersion(ctx, m)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "bench-tls: bootd (%s) and %s, each on core %s, clients on core %s; TLS 1.2, ECDHE, AES-128-GCM, no resumption;\n"+
		"bench-tls: %d rounds of %s each in turn, %d handshakes under way at a time; figures are handshakes per second of the server's CPU time, medians\n",
		runtime.Version(), whole, serverCore, clientCore, o.rounds, o.round, inFlight)
	var figures []bench.Figure
	for _, k := range []customer.KeyType{customer.RSA2048, customer.P256} {
		f, err := measure(ctx, out, m, k, o)
		if err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
		f.Peer = peer
		figures = append(figures, f)
	}
	return bench.Report(ctx, out, figures...)
}
