package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/tftp"
)

// TFTP says who is answered, how, and how much. A limit that is 0 has its
// default.
type TFTP struct {
	// Networks are the client networks. Default: loopback, link-local and the
	// private ranges of RFC 1918 and RFC 4193.
	Networks []netip.Prefix `yaml:"networks"`
	// Interfaces are the network interfaces, by name, whose requests are
	// answered. Default: all.
	Interfaces []string `yaml:"interfaces"`
	// Sockets take requests side by side, for each interface, 1 to 16; each has a
	// thread for the transfers that come in by it. Default: one for each
	// processor, 4 at most.
	Sockets int `yaml:"sockets"`
	// SinglePort sends everything from the request port, for networks whose
	// address translator or firewall lets no other through; a forged request then
	// is easier to keep alive. Default: false, each transfer has a port of its own.
	SinglePort bool `yaml:"single_port"`
	// DSCP marks what is sent, 0 to 63. Default: 0.
	DSCP int `yaml:"dscp"`
	// Transfers run at the same time, each with a socket of its own unless there
	// is a single port, 1 to 60000; further requests get no answer, and firmware
	// asks again. Default: 4096.
	Transfers int `yaml:"transfers"`
	// PerAddress is how many of them one address may have, 1 to 60000; machines
	// behind an address translator share one. Default: 64.
	PerAddress int `yaml:"per_address"`
	// Unanswered is how many of them may wait for the first answer of their
	// client, 1 to 60000. Default: 768.
	Unanswered int `yaml:"unanswered"`
	// NetworkReplies and TotalReplies are how many datagrams per second may go to
	// clients that do not answer, per network (IPv4 /24, IPv6 /64) and in all, 3
	// to 1000000. Default: 128 and 2048.
	NetworkReplies int `yaml:"network_replies"`
	TotalReplies   int `yaml:"total_replies"`
}

const maxTFTPSockets = 16

func (t TFTP) validate() []error {
	var errs []error
	for _, l := range []struct {
		field           string
		value, min, max int
	}{
		{"sockets", t.Sockets, 1, maxTFTPSockets},
		{"dscp", t.DSCP, 0, 63},
		{"transfers", t.Transfers, 1, 60000},
		{"per_address", t.PerAddress, 1, 60000},
		{"unanswered", t.Unanswered, 1, 60000},
		{"network_replies", t.NetworkReplies, 3, 1_000_000},
		{"total_replies", t.TotalReplies, 3, 1_000_000},
	} {
		if l.value != 0 && (l.value < l.min || l.value > l.max) {
			errs = append(errs, fmt.Errorf("tftp.%s: %d is not between %d and %d", l.field, l.value, l.min, l.max))
		}
	}
	for i, name := range t.Interfaces {
		if name == "" || len(name) >= unix.IFNAMSIZ || slices.Contains(t.Interfaces[:i], name) {
			errs = append(errs, fmt.Errorf("tftp.interfaces: %q is empty, too long or there twice; ip -br link lists the names", name))
		}
	}
	return errs
}

// listenTFTP opens the request sockets: on each interface as many as there are
// to be.
func listenTFTP(ctx context.Context, addr string, t TFTP) (conns []*net.UDPConn, err error) {
	defer func() {
		if err != nil {
			for _, c := range conns {
				_ = c.Close()
			}
			conns = nil
		}
	}()
	interfaces, sockets := t.Interfaces, t.Sockets
	if len(interfaces) == 0 {
		interfaces = []string{""}
	}
	if sockets == 0 {
		sockets = min(runtime.GOMAXPROCS(0), 4)
	}
	for _, name := range interfaces {
		// Sockets that share a port share it with any other that asks for the same: a
		// second bootd would take half of the requests away. The first one does not ask.
		probe, err := listenOn(ctx, addr, name, false)
		if err != nil {
			return conns, err
		}
		if err := probe.Close(); err != nil {
			return conns, explainListen("listen.tftp", addr, err)
		}
		for range sockets {
			c, err := listenOn(ctx, addr, name, true)
			if err != nil {
				return conns, err
			}
			conns = append(conns, c)
		}
	}
	return conns, nil
}

// listenOn opens a socket for what comes in by an interface, or by any where
// none is named.
func listenOn(ctx context.Context, addr, device string, shared bool) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: bindTo(device, shared)}
	c, err := lc.ListenPacket(ctx, "udp", addr)
	if errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("tftp.interfaces: there is no interface %q; ip -br link lists them", device)
	}
	if err != nil {
		return nil, explainListen("listen.tftp", addr, err)
	}
	udp, _ := c.(*net.UDPConn) // ListenPacket("udp") always gives one
	return udp, nil
}

// bindTo binds sockets to an interface where one is named, and lets shared ones
// have the same address.
func bindTo(device string, shared bool) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		controlled := c.Control(func(fd uintptr) {
			if shared {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}
			if err == nil && device != "" {
				err = unix.BindToDevice(int(fd), device)
			}
		})
		return errors.Join(controlled, err)
	}
}

func (s *site) tftpServer() *tftp.Server {
	t := s.cfg.TFTP
	return &tftp.Server{
		Open: s.openTFTP, Log: slog.New(warnings{s.log.Handler()}), Networks: t.Networks,
		SinglePort: t.SinglePort, DSCP: t.DSCP,
		Limits: tftp.Limits{
			Transfers: t.Transfers, PerAddress: t.PerAddress, Unanswered: t.Unanswered,
			NetworkReplies: t.NetworkReplies, TotalReplies: t.TotalReplies,
			Grace: time.Duration(s.cfg.Grace) * time.Second,
		},
		OnRequest: func(t tftp.Transfer) {
			s.metrics.tftp.active.Inc()
			s.record(tftpEvent(boot.StageTFTPRequest, t))
		},
		OnDone: func(t tftp.Transfer) {
			s.metrics.tftp.observe(t)
			s.record(tftpEvent(boot.StageTFTPDone, t))
		},
	}
}
