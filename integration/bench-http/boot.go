package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nestboot/nestboot/integration/bench"
)

// crowdOfSlow is how many slow connections are beside a boot.
const crowdOfSlow = 2000

// question is what iPXE asks to be told what to boot.
const question = "boot?uuid=4c4c4544-0042-3510-8052-b4c04f564433&mac=52-54-00-00-00-01&serial=&arch=x86_64&platform=efi&ip=10.0.0.1"

// bootBesideSlow is how many times as long a boot takes beside slow connections:
// handshake, script, initrd and a kernel of the bench's size.
func (b *benchmark) bootBesideSlow(ctx context.Context, name string) (f bench.Figure, err error) {
	var alone, beside []time.Duration
	failed := 0
	for range max(3, b.o.rounds/2) {
		if alone, err = b.boot(ctx, alone); err != nil {
			return f, err
		}
		slow, err := gather(ctx, b.ours.to(name), crowdOfSlow)
		if err != nil {
			return f, err
		}
		beside, err = b.boot(ctx, beside)
		if failed += slow.end(); err != nil {
			return f, err
		}
	}
	fmt.Fprintf(b.out, "bench-http: %s: a boot took %.2f s alone, %.2f beside %d slow connections\n",
		name, bench.Median(alone).Seconds(), bench.Median(beside).Seconds(), crowdOfSlow)
	return bench.Figure{
		Name: name, Unit: "times", Ours: bench.Median(beside).Seconds() / bench.Median(alone).Seconds(), Counts: true, Failed: failed,
	}, nil
}

// boot does what a machine does until it has its files, and adds how long it took.
func (b *benchmark) boot(ctx context.Context, took []time.Duration) ([]time.Duration, error) {
	begun := time.Now()
	for _, what := range []string{question, "images/lab/kernel", "images/lab/0-initrd"} {
		to := b.ours.tls
		to.path = b.chain + what
		if err := download(ctx, to, new(atomic.Int64)); err != nil {
			return nil, fmt.Errorf("boot: %s: %w", what, err)
		}
	}
	return append(took, time.Since(begun)), nil
}
