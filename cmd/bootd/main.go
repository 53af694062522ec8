// Command bootd answers the firmware, the boot loader and the first boot of
// bare-metal machines. This package is flags, configuration and wiring; what a
// machine gets is decided in package boot.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends bootd at once
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bootd:", err)
		os.Exit(1)
	}
}
