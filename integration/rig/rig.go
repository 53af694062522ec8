// Package rig puts the real bootd into the lab, configured as an operator
// would for one rack, and watches machines boot from it. The demo and the
// end-to-end tests share it.
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
	"slices"
	"strings"
	"time"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/integration/lab"
)

// Domain is under which the lab's DNS knows the boot server.
const Domain = "lab.test"

// Set is the artifact set that machines boot with.
const Set = "rack1"

// Message is the content of a file that Ignition writes and the guest shows.
const Message = "Ignition was here, sent by nestboot"

// MessagePath is where that file lies.
const MessagePath = "/etc/nestboot-lab/message"

const butane = `variant: flatcar
version: 1.0.0
storage:
  files:
    - path: ` + MessagePath + `
      mode: 0644
      contents:
        inline: "` + Message + `\n"
`

// Options say what to run.
type Options struct {
	Dir     string // existing folder for all that is written
	Bootd   string // path of the program
	Nestctl string // path of the program
	Foreign string // MAC of a machine that is given another server's artifact; none when empty
	Capture bool   // packets of each machine
}

// Rig is a lab with a bootd that answers.
type Rig struct {
	Lab    *lab.Lab
	Server *Server
	Guest  Guest
	o      Options

	temporary []string // folders outside of o.Dir
}

// Guest is the operating system that machines boot.
type Guest struct{ Kernel, Initrd string }

// Server is one bootd.
type Server struct {
	Name   string
	Dir    string // of configuration and state
	Socket string // of its admin API
	Proc   *lab.Proc
	rig    *Rig
	config string
}

// foreignIP is where the other server, whose root nobody here shares, answers.
const foreignIP = "10.77.0.2"

// New opens the lab, builds the guest, and starts bootd. Close ends all.
func New(ctx context.Context, o Options) (*Rig, error) {
	materials, err := lab.FindMaterials()
	if err != nil {
		return nil, err
	}
	r := &Rig{o: o}
	if r.Guest.Kernel, r.Guest.Initrd, err = lab.BuildGuest(materials, o.Dir); err != nil {
		return nil, err
	}
	options := lab.Options{
		Dir: o.Dir, Materials: materials, Domain: Domain, Capture: o.Capture,
		DHCP: lab.DHCP{File: Set + "/snponly.efi", URL: "http://boot." + Domain + "/" + Set + "/snponly.efi"},
	}
	if o.Foreign != "" {
		options.Addresses = []string{foreignIP + "/24"}
		options.ByMAC = map[string]lab.DHCP{o.Foreign: {NextServer: foreignIP, File: Set + "/snponly.efi"}}
	}
	if r.Lab, err = lab.New(ctx, options); err != nil {
		return nil, err
	}
	r.Server, err = r.start(ctx, "bootd", lab.ServerIP, materials)
	if err == nil && o.Foreign != "" {
		_, err = r.start(ctx, "foreign", foreignIP, materials)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Close ends every process of the rig.
func (r *Rig) Close() error {
	err := r.Lab.Close()
	for _, dir := range r.temporary {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

func (r *Rig) start(ctx context.Context, name, ip string, m lab.Materials) (*Server, error) {
	s := &Server{Name: name, Dir: filepath.Join(r.o.Dir, name), rig: r}
	s.config = filepath.Join(s.Dir, "bootd.yaml")
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
listen: {tftp: "%[2]s:69", http: "%[2]s:80", https: "%[2]s:443", metrics: "%[3]s", admin: %[4]s}
artifacts: {set: %[5]s, ipxe_dir: %[6]s, expose_key_over: [tftp, http]}
images:
  - name: lab
    kernel: %[7]s
    initrds: [%[8]s]
    args: [%[9]s]
butane: lab.bu
`, Domain, ip, metrics, s.Socket, Set, m.IPXEDir(), r.Guest.Kernel, r.Guest.Initrd,
		strings.Join(strings.Fields(lab.GuestArgs), ", "))
	for path, content := range map[string]string{s.config: config, filepath.Join(s.Dir, "lab.bu"): butane} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return nil, fmt.Errorf("prepare %s: %w", name, err)
		}
	}
	return s, s.Start(ctx)
}

// Start starts the server, also again after it was killed, and waits until it
// answers.
func (s *Server) Start(ctx context.Context) error {
	name := s.Name
	for n := 2; ; n++ { // a log of its own for each run
		if _, err := os.Stat(filepath.Join(s.rig.o.Dir, name+".log")); errors.Is(err, os.ErrNotExist) {
			break
		}
		name = fmt.Sprintf("%s-%d", s.Name, n)
	}
	var err error
	// Its life is the rig's, not that of the context for starting it.
	if s.Proc, err = s.rig.Lab.Start(context.WithoutCancel(ctx), name, s.rig.o.Bootd, "--config", s.config); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	_, err = s.Proc.WaitFor(ctx, regexp.MustCompile("bootd answers"))
	return err
}

// StateDir is where the server keeps its keys and its store.
func (s *Server) StateDir() string { return filepath.Join(s.Dir, "state") }

// Nestctl runs the operator's program against the server.
func (s *Server) Nestctl(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, s.rig.o.Nestctl, append([]string{"--socket", s.Socket}, args...)...)
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

// BootsOf returns the events of every boot in which the machine was named, by
// boot id, each in order.
func BootsOf(events []boot.Event, machine string) map[string][]boot.Event {
	boots := map[string][]boot.Event{}
	for _, e := range events {
		if e.Machine == machine && e.Boot != "" {
			boots[e.Boot] = nil
		}
	}
	for _, e := range events {
		if _, ok := boots[e.Boot]; ok {
			boots[e.Boot] = append(boots[e.Boot], e)
		}
	}
	return boots
}

// Missing lists the stages of want that the events lack.
func Missing(events []boot.Event, want []boot.Stage) []boot.Stage {
	return slices.DeleteFunc(slices.Clone(want), func(s boot.Stage) bool {
		return slices.ContainsFunc(events, func(e boot.Event) bool { return e.Stage == s && !e.Failed() })
	})
}

// Stages that a boot by the given firmware goes through.
func Stages(f lab.Source) []boot.Stage {
	rest := []boot.Stage{
		boot.StageTLS, boot.StageScript, boot.StageKernel, boot.StageInitrd, boot.StageConfig, boot.StageIgnition, boot.StageDone,
	}
	if f == lab.HTTP {
		return append([]boot.Stage{boot.StageArtifact}, rest...)
	}
	return append([]boot.Stage{boot.StageTFTPRequest, boot.StageTFTPDone}, rest...)
}
