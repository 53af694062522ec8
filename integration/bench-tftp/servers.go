package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"github.com/nestboot/nestboot/integration/bench"
	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/rig"
)

// server is one of those that are compared, while it runs.
type server struct {
	name    string // with version
	addr    string
	file    string // what it calls the file
	pid     int
	meter   *bench.Meter
	windows bool // it knows RFC 7440
	end     func()
}

// meet begins to count what a server uses.
func (s *server) meet(pid int, end func()) (err error) {
	s.pid, s.end = pid, end
	s.meter, err = bench.NewMeter(pid)
	return err
}

func (s *server) stop() {
	s.end()
	s.meter.Close()
}

// bootdLimits lift what protects a real network from a flood of requests: here
// every client has loopback.
const bootdLimits = `tftp: {transfers: 12000, per_address: 64, unanswered: 12000, network_replies: 40000, total_replies: 40000}`

// set is the artifact set whose file is loaded.
const set = "bench"

// startBootd starts ours, and returns the file that it serves.
func (b *benchmark) startBootd(ctx context.Context, name string) (*server, []byte, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, nil, err
	}
	base := filepath.Join(dir, "ipxe") // that a set's file is of 1.1 MB
	program, err := os.ReadFile(filepath.Join(b.materials.IPXE2Dir(), "ipxe-amd64.efi"))
	if err == nil {
		err = errors.Join(os.Mkdir(base, 0o700), os.WriteFile(filepath.Join(base, "ipxe-amd64.efi"), program, 0o600))
	}
	if err != nil {
		return nil, nil, err
	}
	l, err := rig.Loopback{
		Dir: dir, Bootd: filepath.Join(b.o.bin, "bootd"), Nestctl: filepath.Join(b.o.bin, "nestctl"),
		Core: serverCore, Base: base, Image: 1, Config: bootdLimits,
	}.Start(ctx)
	if err != nil {
		return nil, nil, err
	}
	if _, err := l.Nestctl(ctx, "artifact", "create", set, "--serve", "tftp"); err != nil {
		l.Close()
		return nil, nil, err
	}
	s := &server{name: "bootd", addr: l.HTTP, file: set + ".efi", windows: true}
	if err := s.meet(l.Proc.Pid(), l.Close); err != nil {
		l.Close()
		return nil, nil, err
	}
	path := filepath.Join(dir, "file")
	fetched, err := exec.CommandContext(ctx, "curl", "-sSf", "--tftp-blksize", "8192", "-o", path, "tftp://"+s.addr+"/"+s.file).CombinedOutput()
	if err != nil {
		l.Close()
		return nil, nil, fmt.Errorf("load %s from bootd: %w: %s", s.file, err, fetched)
	}
	data, err := os.ReadFile(path)
	return s, data, err
}

// launch starts a program on the servers' core and waits until it answers.
func (b *benchmark) launch(ctx context.Context, s *server, cmd *exec.Cmd) (*server, error) {
	p, err := lab.Launch(rig.OnCore(serverCore, cmd), s.name, filepath.Join(b.dir, s.name+".log"))
	if err != nil {
		return nil, err
	}
	if err := s.meet(p.Pid(), p.Kill); err != nil {
		p.Kill()
		return nil, err
	}
	if err := answers(ctx, s.addr); err != nil {
		p.Kill()
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return s, nil
}

func (b *benchmark) startPeers(ctx context.Context) error {
	for _, start := range []func(context.Context) (*server, error){b.startDNSMasq, b.startOldHPA, b.startNewHPA, b.startPin} {
		s, err := start(ctx)
		if err != nil {
			return err
		}
		b.peers = append(b.peers, s)
	}
	return nil
}

func (b *benchmark) startDNSMasq(ctx context.Context) (*server, error) {
	path, err := exec.LookPath("dnsmasq")
	if err != nil {
		return nil, fmt.Errorf("%w (make lab installs it)", err)
	}
	version, err := versionOf(exec.CommandContext(ctx, path, "--version"))
	if err != nil {
		return nil, err
	}
	return b.launch(ctx, &server{name: "dnsmasq-" + version, addr: "127.0.0.1:69", file: fileName}, exec.CommandContext(ctx, path,
		"--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0", "--interface=lo", "--pid-file",
		"--enable-tftp", "--tftp-root="+b.files, "--tftp-max=12000"))
}

func (b *benchmark) startOldHPA(ctx context.Context) (*server, error) {
	return b.startHPA(ctx, b.materials, false)
}

func (b *benchmark) startNewHPA(ctx context.Context) (*server, error) {
	return b.startHPA(ctx, b.materials.From("forky"), true)
}

func (b *benchmark) startHPA(ctx context.Context, m lab.Materials, windows bool) (*server, error) {
	const program = "usr/sbin/in.tftpd"
	version, err := versionOf(m.Command(ctx, program, "--version"))
	if err != nil {
		return nil, err
	}
	addr, err := rig.FreeAddr()
	if err != nil {
		return nil, err
	}
	return b.launch(ctx, &server{name: "tftp-hpa-" + version, addr: addr, file: fileName, windows: windows},
		m.Command(ctx, program, "--foreground", "--user", "root", "--address", addr, "--secure", b.files))
}

func (b *benchmark) startPin(ctx context.Context) (*server, error) {
	path := filepath.Join(b.o.bin, "pin-tftpd")
	version, err := versionOf(exec.CommandContext(ctx, "go", "version", "-m", path))
	if err != nil {
		return nil, err
	}
	addr, err := rig.FreeAddr()
	if err != nil {
		return nil, err
	}
	return b.launch(ctx, &server{name: "pin-tftp-" + version, addr: addr, file: fileName},
		exec.CommandContext(ctx, path, "-listen", addr, "-dir", b.files))
}

// startEngine is ours without bootd around it, for a file that bootd has not.
func (b *benchmark) startEngine(ctx context.Context) (*server, error) {
	addr, err := rig.FreeAddr()
	if err != nil {
		return nil, err
	}
	return b.launch(ctx, &server{name: "engine", addr: addr, file: fileName, windows: true},
		exec.CommandContext(ctx, filepath.Join(b.o.bin, "engine-tftpd"), "-listen", addr, "-dir", b.files))
}

// version is what programs print of themselves: dnsmasq, tftp-hpa, and what the
// go tool says of a program with pin/tftp.
var version = regexp.MustCompile(`(?:Dnsmasq version |tftp-hpa |pin/tftp/v3\s+v)([0-9][0-9.]*)`)

func versionOf(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	found := version.FindSubmatch(out)
	if found == nil {
		return "", fmt.Errorf("%s tells no version: %w: %.200s", cmd.Path, err, out)
	}
	return string(found[1]), nil
}

// answers asks for a file that is not there until it is refused.
func answers(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	for ctx.Err() == nil {
		if _, err := conn.WriteToUDP([]byte("\x00\x01there-is-no-such-file\x00octet\x00"), to); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			return err
		}
		if _, _, err := conn.ReadFrom(make([]byte, 512)); err == nil {
			return nil
		} else if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return fmt.Errorf("nothing answers at %s: %w", addr, ctx.Err())
}
