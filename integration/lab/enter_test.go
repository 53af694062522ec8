package lab

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEnterGivesOwnNamespaces(t *testing.T) {
	needNamespaces(t)
	devices, err := net.Interfaces()
	require.NoError(t, err)
	require.Len(t, devices, 1, "only lo")
	self, err := os.Readlink("/proc/self")
	require.NoError(t, err)
	require.Equal(t, "1", self, "/proc is that of the new namespace")
}

// again starts this test program as from outside; it enters namespaces within ours and finds the helper there.
func again(t *testing.T, helper string) *exec.Cmd {
	t.Helper()
	needNamespaces(t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), inside+"=", "LAB_HELPER="+helper)
	return cmd
}

// beHelper is all that the program does when again started it.
func beHelper(helper string) {
	switch helper {
	case "exit":
		os.Exit(7)
	case "term":
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		_, _ = os.Stdout.WriteString("ready\n")
		<-signals
		os.Exit(3)
	}
}

func TestEnterPassesExitCode(t *testing.T) {
	err := again(t, "exit").Run()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 7, exit.ExitCode())
}

func TestEnterPassesSignals(t *testing.T) {
	cmd := again(t, "term")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	require.Equal(t, 3, exit.ExitCode())
}

func TestEnterKillsWhatItLeavesBehind(t *testing.T) {
	cmd := again(t, "term")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	read := bufio.NewReader(out)
	_, err = read.ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Kill())
	// The helper inside holds the other end of the pipe: it is gone when the pipe ends.
	_, err = read.ReadString('\n')
	require.Error(t, err)
	require.Error(t, cmd.Wait())
}

func TestNamespacesMapUsers(t *testing.T) {
	root := namespaces(0, 0)
	require.Zero(t, root.Cloneflags&syscall.CLONE_NEWUSER)
	user := namespaces(1000, 100)
	require.NotZero(t, user.Cloneflags&syscall.CLONE_NEWUSER)
	require.Equal(t, []syscall.SysProcIDMap{{HostID: 1000, Size: 1}}, user.UidMappings)
	require.Equal(t, []syscall.SysProcIDMap{{HostID: 100, Size: 1}}, user.GidMappings)
}
