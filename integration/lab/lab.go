// Package lab boots virtual bare-metal machines with real firmware against a boot server, on one machine and without
// a cable: a bridge, dnsmasq as the customer's DHCP and DNS server, QEMU with OVMF, AAVMF or SeaBIOS, and a small guest
// that runs the real Ignition. Everything lives in namespaces of its own and is gone when the program ends.
//
// It is not a test of anything: tests and the demo use it, and it knows nothing of bootd beyond how to start a program.
// It is not a general virtual machine manager either: one card per machine, at most one disk.
//
// Begin with Enter (once, first), then FindMaterials, New, Start the server under test, Boot a Machine, and WaitFor a
// line on its serial console. Everything that happened lies in Options.Dir afterwards.
package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"
)

// Addresses of the lab's network. The host side of the bridge is where servers listen.
const (
	ServerIP    = "10.77.0.1"
	ServerIPv6  = "fd00:77::1"
	bridge      = "br0"
	bridgeCIDR  = ServerIP + "/24"
	bridgeCIDR6 = ServerIPv6 + "/64"
)

// Options describe the customer's network.
type Options struct {
	Dir       string          // existing folder for logs, leases, firmware variables and captures
	Materials Materials       // firmware comes from here
	Domain    string          // this name and all below it resolve to DomainIP; none when empty
	DomainIP  string          // ServerIP when empty
	DHCP      DHCP            // what every machine is told
	ByMAC     map[string]DHCP // what a machine with this address (lower case, colons) is told instead
	Raw       []string        // further lines of dnsmasq's configuration
	Addresses []string        // further addresses of the host on the bridge, such as "10.77.0.2/24"
	Capture   bool            // write each machine's packets to Dir/<machine>.pcap
}

// Lab is a running network. Its methods may be called from several goroutines.
type Lab struct {
	options Options

	mu     sync.Mutex
	procs  []*Proc
	taps   int
	closed bool

	telling sync.Mutex // one change of what DHCP says at a time
	dnsmasq *Proc
	told    int // changes so far
}

// New builds the network and starts dnsmasq, which lives until Close. It wants to run inside Enter and refuses a
// network that is there already: one lab at a time.
func New(ctx context.Context, o Options) (*Lab, error) {
	if os.Getenv(inside) == "" {
		return nil, errors.New("open the lab: not inside its namespaces: call Enter first")
	}
	if err := addBridge(ctx, o.Addresses); err != nil {
		return nil, fmt.Errorf("open the lab: %w", err)
	}
	l := &Lab{options: o}
	if err := l.startDNSMasq(ctx, "dnsmasq"); err != nil {
		return nil, errors.Join(fmt.Errorf("open the lab: %w", err), l.Close())
	}
	return l, nil
}

func (l *Lab) startDNSMasq(ctx context.Context, name string) error {
	// Who got which address in a lab before would decide who gets it now.
	if err := os.Remove(l.options.leases()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old leases: %w", err)
	}
	return l.restartDNSMasq(ctx, name)
}

func (l *Lab) restartDNSMasq(ctx context.Context, name string) (err error) {
	config := filepath.Join(l.options.Dir, "dnsmasq.conf")
	if err := os.WriteFile(config, l.options.dnsmasq(), 0o600); err != nil {
		return fmt.Errorf("write dnsmasq's configuration: %w", err)
	}
	// The server's life is the lab's, not that of a context for opening it.
	l.dnsmasq, err = l.Start(context.WithoutCancel(ctx), name, "dnsmasq", "--no-daemon", "--user=root", "--conf-file="+config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err = l.dnsmasq.WaitFor(ctx, regexp.MustCompile(`^dnsmasq: started|^dnsmasq-dhcp: DHCP, IP range`))
	return err
}

// Tell changes what DHCP says to the machines with these addresses (lower case, colons), for what is known only when
// servers run, such as an address with a token. Leases stay.
func (l *Lab) Tell(ctx context.Context, byMAC map[string]DHCP) error {
	l.telling.Lock()
	defer l.telling.Unlock()
	all := maps.Clone(byMAC)
	for mac, d := range l.options.ByMAC {
		if _, changed := all[mac]; !changed {
			all[mac] = d
		}
	}
	l.options.ByMAC = all
	l.told++
	l.dnsmasq.Kill()
	if err := l.restartDNSMasq(ctx, fmt.Sprintf("dnsmasq-%d", l.told)); err != nil {
		return fmt.Errorf("change what DHCP says: %w", err)
	}
	return nil
}

// Close kills every process of the lab, waits for them and takes the network down. A second call does nothing.
func (l *Lab) Close() error {
	l.mu.Lock()
	closed, procs := l.closed, l.procs
	l.closed, l.procs = true, nil
	l.mu.Unlock()
	if closed {
		return nil
	}
	for i := len(procs) - 1; i >= 0; i-- {
		procs[i].Kill()
	}
	return deleteNetwork()
}
