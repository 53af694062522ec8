// Package storm powers on many machines at once, as when the power of a hall
// comes back, and watches each boot to its end. A machine has an address of its
// own on loopback and does what firmware, iPXE, Ignition and the running system
// do, with protocol clients that are written here from the standards and call
// nothing of the product: a fault that server and client have in common would
// not be seen.
//
// A machine (machine.go) goes through the stages in their order; each answer is
// checked, by size and SHA-256 where it is a file. Begin at Run.
package storm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// Stage is a part of a boot.
type Stage string

// The stages, in their order.
const (
	TFTP     Stage = "tftp"     // OVMF: size probe, then the set's .efi
	TLS      Stage = "tls"      // iPXE: connection with the set's client certificate
	Script   Stage = "script"   // iPXE: what to do; time that it was told to wait is not in it
	Kernel   Stage = "kernel"   // iPXE
	Initrd   Stage = "initrd"   // iPXE: those of the image, together
	Pointer  Stage = "pointer"  // iPXE: the machine's own initrd
	Ignition Stage = "ignition" // Ignition: connection and configuration
	Done     Stage = "done"     // curl of the running system: connection and report
)

// Stages are all of them.
func Stages() []Stage {
	return []Stage{TFTP, TLS, Script, Kernel, Initrd, Pointer, Ignition, Done}
}

// File is what a download must come to.
type File struct {
	Size   int64
	SHA256 [32]byte
}

// Config is a storm.
type Config struct {
	Machines int
	Spread   time.Duration // within which all are powered on, evenly; 0: at once
	Patience time.Duration // for one machine, after which it has failed

	TFTP, HTTPS netip.AddrPort // of the server, whatever name URLs have
	Boot        string         // file that firmware loads by TFTP
	Loader      File           // what that file is
	IPXE        string         // host name that iPXE asks, with the port
	Certificate tls.Certificate
	Roots       *x509.CertPool  // that iPXE trusts
	Images      map[string]File // by the path of their URLs
}

// Run powers all machines on and returns when the last has booted, failed or
// lost its patience.
func Run(ctx context.Context, c Config) Report {
	all, b := make([]outcome, c.Machines), newBuffers()
	var running sync.WaitGroup
	start := time.Now()
	for i := range all {
		m := newMachine(&c, b, i)
		running.Go(func() {
			on := time.NewTimer(time.Until(start.Add(c.Spread * time.Duration(i) / time.Duration(c.Machines))))
			defer on.Stop()
			select {
			case <-on.C:
			case <-ctx.Done():
			}
			ctx, cancel := context.WithTimeout(ctx, c.Patience)
			defer cancel()
			all[i] = m.boot(ctx)
		})
	}
	running.Wait()
	return newReport(all, time.Since(start))
}

// perNetwork machines share a /24, as racks do.
const perNetwork = 200

// addrOf is the address of the n-th machine: 127.1.0.1 and on.
func addrOf(n int) netip.Addr {
	network := n / perNetwork
	return netip.AddrFrom4([4]byte{127, byte(1 + network>>8), byte(network), byte(1 + n%perNetwork)})
}

func uuidOf(n int) string { return fmt.Sprintf("4c4c4544-0042-3510-8052-%012x", n) }

func macOf(n int) string {
	return fmt.Sprintf("52-54-%02x-%02x-%02x-%02x", byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}
