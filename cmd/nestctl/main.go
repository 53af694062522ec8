// Command nestctl is the operator's hand: it asks a running bootd over its
// admin socket. This package is flags and printing; the answers are package
// admin's.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends what does not heed the first
	err := command().ExecuteContext(ctx)
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	if errors.Is(err, errRefused) {
		os.Exit(3)
	}
	fmt.Fprintln(os.Stderr, "nestctl:", err)
	os.Exit(1)
}
