// Command demo boots one virtual bare-metal machine through bootd, from power
// on to a finished Ignition run, and prints its timeline as it happens.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/rig"
)

// A boot takes about 20 seconds where QEMU has to emulate the processor.
const patience = 4 * time.Minute

func main() {
	bootd := flag.String("bootd", ".bin/bootd", "the `program` under demonstration")
	nestctl := flag.String("nestctl", ".bin/nestctl", "the operator's `program`")
	keep := flag.Bool("keep", false, "keep logs and a capture of the machine's packets")
	flag.Parse()
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "nestboot-demo-")
	if err == nil {
		err = demo(ctx, rig.Options{Dir: dir, Bootd: *bootd, Nestctl: *nestctl, Capture: *keep})
	}
	if err != nil {
		explain(dir, err)
		os.Exit(1)
	}
	if *keep {
		fmt.Println("demo: logs and packets are in", dir)
		return
	}
	_ = os.RemoveAll(dir) // a leftover in the temporary folder does no harm
}

var machine = lab.Machine{
	Name: "machine", MAC: "52:54:00:00:00:01", UUID: "4c4c4544-0042-3510-8052-b4c04f564433", Serial: "DEMO1", Boot: lab.PXE,
}

func demo(ctx context.Context, o rig.Options) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the machine took longer than %s", patience))
	defer cancel()
	fmt.Println("demo: a network of its own, dnsmasq as the customer's DHCP and DNS, bootd, and a machine with UEFI firmware")
	r, err := rig.New(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	fmt.Printf("demo: made its boot files: nestctl artifact create %s --serve %s\n", rig.Set, rig.Serve)
	start := time.Now()
	fmt.Println("demo: power on")
	m, err := r.Lab.Boot(ctx, machine)
	if err != nil {
		return err
	}
	finished, err := follow(ctx, o.Nestctl, r.Server.Socket)
	if err != nil {
		return err
	}
	console, err := m.WaitFor(ctx, regexp.MustCompile("^LAB-TEXT "+rig.Message+"|^LAB-FAIL"))
	if err == nil && strings.HasPrefix(console.Text, "LAB-FAIL") {
		err = fmt.Errorf("the machine gave up: %s", console.Text)
	}
	if err != nil {
		return err
	}
	select {
	case err = <-finished:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("the machine has not phoned home: %w", err)
	}
	fmt.Printf("demo: %s on its serial console, %.1f s after power on: %q\n", rig.MessagePath, console.At.Seconds(), strings.TrimPrefix(console.Text, "LAB-TEXT "))
	fmt.Printf("demo: done, %.1f s from power on to phone-home\n", time.Since(start).Seconds())
	return nil
}

// follow prints the timeline as `nestctl events -f` does, and reports when the
// machine is done or the stream has ended without.
func follow(ctx context.Context, nestctl, socket string) (<-chan error, error) {
	cmd := exec.CommandContext(ctx, nestctl, "--socket", socket, "events", "-f")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("follow events: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("follow events: %w", err)
	}
	finished := make(chan error, 1)
	go func() {
		finished <- watch(out)
		_ = cmd.Process.Kill() // it would follow for ever
		_ = cmd.Wait()         // killed on purpose
	}()
	return finished, nil
}

var done = regexp.MustCompile(`^\S+ \S+\s+\S+\s+\S+s\s+done\s`)

func watch(out io.Reader) error {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		fmt.Println("  " + lines.Text())
		if done.MatchString(lines.Text()) {
			return nil
		}
	}
	return errors.Join(errors.New("the stream of events ended"), lines.Err())
}

// explain says what went wrong and shows where to look.
func explain(dir string, err error) {
	fmt.Fprintln(os.Stderr, "demo: FAILED:", err)
	logs, globErr := filepath.Glob(filepath.Join(dir, "*.log"))
	if globErr != nil || len(logs) == 0 {
		return
	}
	fmt.Fprintln(os.Stderr, "demo: everything that was printed is kept (times are seconds since each program's start):")
	for _, log := range logs {
		fmt.Fprintln(os.Stderr, "  ", log)
	}
}
