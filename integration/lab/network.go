package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// group marks the lab's network devices, to delete all of them with one command.
const group = "77"

// addBridge makes the bridge that all machines hang on, and gives the host its addresses there. Without forward_delay
// 0 a bridge keeps each new port silent for 15 s, longer than firmware waits for an address.
func addBridge(ctx context.Context, more []string) error {
	// First of all: it fails where another lab is open, and nothing is changed then.
	if err := ip(ctx, "link add "+bridge+" group "+group+" type bridge forward_delay 0 mcast_snooping 0"); err != nil {
		return err
	}
	commands := []string{"link set lo up", "address add " + bridgeCIDR6 + " dev " + bridge + " nodad"}
	for _, address := range append([]string{bridgeCIDR}, more...) {
		commands = append(commands, "address add "+address+" dev "+bridge)
	}
	if err := ip(ctx, append(commands, "link set "+bridge+" up")...); err != nil {
		return errors.Join(err, deleteNetwork())
	}
	return nil
}

// Loopback makes 127.0.0.1 usable where Enter has made a network that has nothing else yet; elsewhere it does nothing.
func Loopback(ctx context.Context) error {
	if os.Getenv(inside) == "" {
		return nil
	}
	return ip(ctx, "link set lo up")
}

// addTap hangs a socket for one machine's network card on the bridge and returns its name.
func (l *Lab) addTap(ctx context.Context) (string, error) {
	l.mu.Lock()
	name := fmt.Sprintf("tap%d", l.taps)
	l.taps++
	l.mu.Unlock()
	return name, ip(ctx, "tuntap add "+name+" mode tap", "link set "+name+" group "+group+" master "+bridge+" up")
}

// deleteNetwork takes everything down. It is part of closing, which happens when contexts have ended.
func deleteNetwork() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return ip(ctx, "link delete group "+group)
}

// ip runs commands of ip(8), all or up to the first that fails.
func ip(ctx context.Context, commands ...string) error {
	cmd := exec.CommandContext(ctx, "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(commands, "; "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
