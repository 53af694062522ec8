package rig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/nestboot/nestboot/integration/lab"
)

// Loopback says how to run a bootd without a lab: on loopback, on ports that
// are free, with one image. It is for what takes many connections and no
// machine.
type Loopback struct {
	Dir     string // existing folder for configuration, state and logs
	Bootd   string // path of the program
	Nestctl string // path of the program
	Config  string // further settings, as YAML
	Image   int64  // bytes of the image's kernel
	Initrd  int64  // bytes of the image's initrd; a few when 0
	TFTP    string // address and port of TFTP; those of HTTP when empty
	Base    string // package that artifact sets are made of; none when empty
	Core    string // the processor that it may use, as taskset(1) names it; any when empty
	Unread  bool   // what it logs goes into the file bootd.out, and nobody else spends time on it
}

// Start starts the daemon. Its life is that of ctx; Close ends it earlier and
// removes what lies outside of o.Dir.
func (o Loopback) Start(ctx context.Context) (*LoopbackServer, error) {
	s := &LoopbackServer{o: o, Server: Server{Name: "bootd", Dir: o.Dir, logs: o.Dir, nestctl: o.Nestctl}}
	s.config = filepath.Join(o.Dir, "bootd.yaml")
	s.launch = func(_ context.Context, name, config string) (*lab.Proc, error) {
		cmd := exec.CommandContext(ctx, o.Bootd, "--config", config)
		if o.Unread {
			cmd = exec.CommandContext(ctx, "sh", "-c", `exec "$0" --config "$1" >"$2" 2>&1`, o.Bootd, config, filepath.Join(o.Dir, name+".out"))
		}
		return lab.Launch(OnCore(o.Core, cmd), name, filepath.Join(o.Dir, name+".log"))
	}
	if o.Unread {
		s.answers = s.ready
	}
	if err := lab.Loopback(ctx); err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("prepare bootd on loopback: %w", err)
	}
	if err := s.Start(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// LoopbackServer is a bootd that answers on loopback.
type LoopbackServer struct {
	Server
	HTTPS   string // host and port
	HTTP    string // host and port
	Metrics string // host and port

	o         Loopback
	socketDir string
}

const loopbackConfig = `domain: ` + Domain + `
addresses: [127.0.0.1]
state_dir: state
listen: {tftp: "%[7]s", http: "%[1]s", https: "%[2]s", metrics: "%[3]s", admin: %[4]s}
images:
  - name: lab
    kernel: ` + KernelName + `
    initrds: [` + InitrdName + `]
butane: lab.bu
artifacts: {bases: [%[5]s]}
%[6]s
`

func (s *LoopbackServer) prepare() (err error) {
	if s.socketDir, err = os.MkdirTemp("", "nestboot-loopback-"); err != nil {
		return err
	}
	s.Socket = filepath.Join(s.socketDir, "admin.sock")
	for _, addr := range []*string{&s.HTTPS, &s.HTTP, &s.Metrics} {
		if *addr, err = FreeAddr(); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "lab.bu"), []byte(butane), 0o600); err != nil {
		return err
	}
	for name, size := range map[string]int64{KernelName: s.o.Image, InitrdName: max(s.o.Initrd, 6)} {
		if err := fill(filepath.Join(s.Dir, name), size); err != nil {
			return err
		}
	}
	return s.Configure(s.o.Config)
}

// The files of the image, in the server's folder and in its URLs.
const (
	KernelName = "kernel"
	InitrdName = "initrd"
)

// fill writes a file in which no two blocks are alike, so that a digest tells
// whether a download was put together in the right order.
func fill(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{}), size)
	return errors.Join(err, f.Close())
}

// ready waits until the server says that it is.
func (s *LoopbackServer) ready(ctx context.Context) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Metrics+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = res.Body.Close() // the status was wanted
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("bootd is not ready: %w", errors.Join(err, context.Cause(ctx)))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Configure replaces the further settings; Start or SIGHUP takes them up.
func (s *LoopbackServer) Configure(more string) error {
	config := fmt.Sprintf(loopbackConfig, s.HTTP, s.HTTPS, s.Metrics, s.Socket, s.o.Base, more, cmp.Or(s.o.TFTP, s.HTTP))
	return os.WriteFile(s.config, []byte(config), 0o600)
}

// Close kills the daemon where it still runs.
func (s *LoopbackServer) Close() {
	if s.Proc != nil {
		s.Proc.Kill()
	}
	_ = os.RemoveAll(s.socketDir) // a leftover in the temporary folder does no harm
}

// FreeAddr is an address on loopback that was free a moment ago, for programs
// that can't choose one.
func FreeAddr() (string, error) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// OnCore makes a command run on one processor alone, or leaves it as it is.
func OnCore(core string, cmd *exec.Cmd) *exec.Cmd {
	if core == "" {
		return cmd
	}
	taskset, err := exec.LookPath("taskset")
	if err != nil {
		cmd.Err = err // Start reports it
		return cmd
	}
	cmd.Args = append([]string{"taskset", "-c", core, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = taskset
	return cmd
}
