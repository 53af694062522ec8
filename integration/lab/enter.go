package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

// inside is the environment variable by which a program knows that Enter started it, or one that it started.
const inside = "NESTBOOT_LAB"

// Enter moves the program into namespaces of its own: network, mounts, processes, and users where it is not root. It
// is the first thing that main or TestMain does. Outside, Enter starts the same program inside, hands it arguments,
// standard streams and signals, and exits with its code; it returns only inside, with nil, or when this machine lets
// neither root nor a user namespace do so, with the reason. When the program ends, however it ends, the kernel kills
// all that was started inside and takes the network away.
func Enter() error {
	if os.Getenv(inside) != "" {
		return settle()
	}
	code, err := reexec()
	if err != nil {
		return fmt.Errorf("enter the lab's namespaces (needs root, or a kernel that lets users make user namespaces): %w", err)
	}
	os.Exit(code)
	return nil
}

func reexec() (code int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	// The kernel ties Pdeathsig to the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// No context: the child decides when it ends, and it hears all signals.
	cmd := exec.CommandContext(context.Background(), self, os.Args[1:]...)
	// A user's PATH often lacks the folders of dnsmasq and ip.
	cmd.Env = append(os.Environ(), inside+"=inside", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = namespaces(os.Getuid(), os.Getgid())
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // fails when the child has just ended, and then there is nobody to tell
		}
	}()
	err = cmd.Wait()
	signal.Stop(signals)
	close(signals)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1), nil // -1: killed by a signal
	}
	return 0, err
}

func namespaces(uid, gid int) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true, // a terminal's Ctrl-C comes once, through us
	}
	if uid != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{HostID: gid, Size: 1}}
	}
	return attr
}

// settle makes the inside livable: /proc shows the new processes. Only the first process has to; those that it starts
// find it done.
func settle() error {
	if os.Getpid() != 1 {
		return nil
	}
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("the lab's machines need their network cards (root, or read and write on /dev/net/tun): %w", err)
	}
	tun.Close()
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the lab's mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount the lab's /proc: %w", err)
	}
	return nil
}
