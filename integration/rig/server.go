package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/integration/lab"
)

const butane = `variant: flatcar
version: 1.0.0
storage:
  files:
    - path: ` + MessagePath + `
      mode: 0644
      contents:
        inline: "` + Message + `\n"
`

// LegacyPort is where firmware of yesterday is answered over HTTPS.
const LegacyPort = "8443"

// Server is one bootd.
type Server struct {
	Name   string
	Dir    string // of configuration and state
	Socket string // of its admin API
	Proc   *lab.Proc

	config  string
	logs    string // folder
	nestctl string // path of the program
	launch  func(ctx context.Context, name, config string) (*lab.Proc, error)
	answers func(ctx context.Context) error // waits until it does; nil: its log tells
}

// serve configures and starts a server, and makes the set as an operator does.
func (r *Rig) serve(ctx context.Context, name, ip string, m lab.Materials) (*Server, error) {
	s, err := r.configure(name, ip, m)
	if err != nil {
		return nil, err
	}
	if err := s.Start(ctx); err != nil {
		return nil, err
	}
	_, err = s.Nestctl(ctx, "artifact", "create", Set, "--serve", Serve)
	return s, err
}

func (r *Rig) configure(name, ip string, m lab.Materials) (*Server, error) {
	s := &Server{Name: name, Dir: filepath.Join(r.o.Dir, name), logs: r.o.Dir, nestctl: r.o.Nestctl}
	s.config = filepath.Join(s.Dir, "bootd.yaml")
	s.launch = func(ctx context.Context, name, config string) (*lab.Proc, error) {
		// Its life is the rig's, not that of the context for starting it.
		return r.Lab.Start(context.WithoutCancel(ctx), name, r.o.Bootd, "--config", config)
	}
	// A Unix socket's path has 107 bytes, and o.Dir may be deep in somebody's tree.
	socketDir, err := os.MkdirTemp("", "nestboot-rig-")
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", name, err)
	}
	r.temporary = append(r.temporary, socketDir)
	s.Socket = filepath.Join(socketDir, "admin.sock")
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("prepare %s: %w", name, err)
	}
	metrics := "127.0.0.1:9090"
	if ip != lab.ServerIP {
		metrics = "127.0.0.1:9091"
	}
	config := fmt.Sprintf(`domain: %[1]s
addresses: [%[2]s]
state_dir: state
listen: {tftp: "%[2]s:69", http: "%[2]s:80", https: "%[2]s:443", metrics: "%[3]s", admin: %[4]s, legacy_https: "%[2]s:%[9]s"}
artifacts: {bases: [%[5]s]}
images:
  - name: lab
    kernel: %[6]s
    initrds: [%[7]s]
    args: [%[8]s]
butane: lab.bu
`, Domain, ip, metrics, s.Socket, strings.Join(m.Debs(), ", "), r.Guest.Kernel, r.Guest.Initrd,
		strings.Join(strings.Fields(lab.GuestArgs), ", "), LegacyPort)
	for path, content := range map[string]string{s.config: config, filepath.Join(s.Dir, "lab.bu"): butane} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return nil, fmt.Errorf("prepare %s: %w", name, err)
		}
	}
	return s, nil
}

// Start starts the server, also again after it was killed, and waits until it
// answers.
func (s *Server) Start(ctx context.Context) error {
	name := s.Name
	for n := 2; ; n++ { // a log of its own for each run
		if _, err := os.Stat(filepath.Join(s.logs, name+".log")); errors.Is(err, os.ErrNotExist) {
			break
		}
		name = fmt.Sprintf("%s-%d", s.Name, n)
	}
	var err error
	if s.Proc, err = s.launch(ctx, name, s.config); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if s.answers != nil {
		return s.answers(ctx)
	}
	_, err = s.Proc.WaitFor(ctx, regexp.MustCompile("bootd answers"))
	return err
}

// StateDir is where the server keeps its keys and its store.
func (s *Server) StateDir() string { return filepath.Join(s.Dir, "state") }

// Nestctl runs the operator's program against the server.
func (s *Server) Nestctl(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, s.nestctl, append([]string{"--socket", s.Socket}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("nestctl %q: %w: %s", args, err, stderr.String())
	}
	return out, nil
}

// Events are all events that the server knows, in order.
func (s *Server) Events(ctx context.Context) ([]boot.Event, error) {
	out, err := s.Nestctl(ctx, "events", "-o", "json")
	if err != nil {
		return nil, err
	}
	var events []boot.Event
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var e boot.Event
		if err := d.Decode(&e); err != nil {
			return nil, fmt.Errorf("read events: %w", err)
		}
		events = append(events, e)
	}
	return events, nil
}
