package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// Proc is a process of the lab: a virtual machine, the DHCP server, or a program under test. Its output, standard
// output and error together, lies in a log file with times and can be waited for.
type Proc struct {
	Name string
	Log  string // path of the log file

	cmd  *exec.Cmd
	out  *transcript
	done chan struct{}
	err  error // of Wait; readable when done is closed
}

// Start runs a program inside the lab until it ends, is stopped, ctx ends or the lab is closed. Its output goes to
// Options.Dir/name.log; a name that was used before overwrites its log.
func (l *Lab) Start(ctx context.Context, name, program string, args ...string) (*Proc, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	p, err := Launch(cmd, name, filepath.Join(l.options.Dir, name+".log"))
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		p.Kill()
		return nil, fmt.Errorf("start %s: the lab is closed", name)
	}
	l.procs = append(l.procs, p)
	return p, nil
}

// Launch starts a command outside of any lab. Whoever does so ends it by Stop or Kill. Its output goes to the file log.
func Launch(cmd *exec.Cmd, name, log string) (*Proc, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &Proc{Name: name, Log: log, cmd: cmd, out: newTranscript(file), done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	cmd.WaitDelay = time.Second // for a grandchild that keeps the pipe open
	if err := cmd.Start(); err != nil {
		file.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		p.out.end()
		file.Close()
		close(p.done)
	}()
	return p, nil
}

// WaitFor returns the first line of the whole output that matches pattern, as soon as there is one. It fails, with
// the last lines, when the process has ended without it or ctx ends.
func (p *Proc) WaitFor(ctx context.Context, pattern *regexp.Regexp) (Line, error) {
	return p.waitFor(ctx, pattern, false)
}

// WaitForPart is WaitFor that also looks at a line that has not ended yet: a prompt, or a transfer while it runs. A
// pattern may match before all of the line is there.
func (p *Proc) WaitForPart(ctx context.Context, pattern *regexp.Regexp) (Line, error) {
	return p.waitFor(ctx, pattern, true)
}

func (p *Proc) waitFor(ctx context.Context, pattern *regexp.Regexp, unfinished bool) (Line, error) {
	line, err := p.out.waitFor(ctx, pattern, unfinished)
	if err != nil {
		return Line{}, fmt.Errorf("%s: %w", p.Name, err)
	}
	return line, nil
}

// Lines returns what was printed so far. The caller may not change it.
func (p *Proc) Lines() []Line { return p.out.all() }

// Pid is the process's id inside the lab.
func (p *Proc) Pid() int { return p.cmd.Process.Pid }

// Wait waits for the end and returns nil for exit code 0, an *exec.ExitError in the chain for any other end, or the
// error of ctx when that ends first (the process goes on then).
func (p *Proc) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		if p.err != nil {
			return fmt.Errorf("%s ended: %w", p.Name, p.err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of %s: %w", p.Name, context.Cause(ctx))
	}
}

// Stop asks the process to end (SIGTERM: for a machine, its plug), waits, and returns what Wait returns. When ctx ends
// first the process is killed, and that is an error.
func (p *Proc) Stop(ctx context.Context) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails when it has ended, which is what was wanted
	select {
	case <-p.done:
		return p.Wait(ctx)
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("%s did not stop, killed: %w", p.Name, context.Cause(ctx))
	}
}

// Kill ends the process by SIGKILL and returns when it is gone.
func (p *Proc) Kill() {
	_ = p.cmd.Process.Kill() // fails when it has ended
	<-p.done
}
