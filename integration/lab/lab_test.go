package lab

import (
	"context"
	"net"
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// open makes a lab that is closed when the test ends.
func open(t *testing.T, o Options) *Lab {
	t.Helper()
	needNamespaces(t)
	for _, program := range []string{"dnsmasq", "ip"} {
		if _, err := exec.LookPath(program); err != nil {
			lack(t, err.Error())
		}
	}
	o.Dir = t.TempDir()
	l, err := New(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// soon is longer than anything here takes on a busy machine.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestLabNetwork(t *testing.T) {
	l := open(t, Options{Domain: "lab.test", Addresses: []string{"10.77.0.2/24"}})

	for _, address := range []string{ServerIP, "10.77.0.2", ServerIPv6} {
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(address, "80"))
		require.NoError(t, err)
		require.NoError(t, listener.Close())
	}
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, ServerIP+":53")
	}}
	for _, name := range []string{"lab.test", "ipxe.lab.test"} {
		found, err := resolver.LookupHost(soon(t), name)
		require.NoError(t, err)
		require.Equal(t, []string{ServerIP}, found)
	}

	_, err := New(t.Context(), Options{Dir: t.TempDir()})
	require.ErrorContains(t, err, "File exists", "one lab at a time")
	_, err = net.InterfaceByName(bridge)
	require.NoError(t, err, "the second lab must not harm the first")

	_, err = l.addTap(t.Context())
	require.NoError(t, err)
	require.NoError(t, l.Close())
	devices, err := net.Interfaces()
	require.NoError(t, err)
	require.Len(t, devices, 1, "only lo is left")
	require.NoError(t, l.Close(), "closing again does no harm")
}

func TestNewWantsEnter(t *testing.T) {
	t.Setenv(inside, "")
	_, err := New(t.Context(), Options{})
	require.ErrorContains(t, err, "call Enter first")
}

func TestNewFailsOnBadAddress(t *testing.T) {
	needNamespaces(t)
	_, err := New(t.Context(), Options{Dir: t.TempDir(), Addresses: []string{"10.77.0.300/24"}})
	require.ErrorContains(t, err, "10.77.0.300")
	_, err = net.InterfaceByName(bridge)
	require.Error(t, err, "nothing is left behind")
}

func TestNewFailsWithDNSMasqsReason(t *testing.T) {
	needNamespaces(t)
	_, err := New(t.Context(), Options{Dir: t.TempDir(), ByMAC: map[string]DHCP{"zz": {}}})
	require.ErrorContains(t, err, "dnsmasq: error at line")
	_, err = net.InterfaceByName(bridge)
	require.Error(t, err, "nothing is left behind")
}

func TestProc(t *testing.T) {
	l := open(t, Options{})
	p, err := l.Start(t.Context(), "server", "sh", "-c", "trap 'echo bye >&2; exit 4' TERM"+idle(t))
	require.NoError(t, err)
	_, err = p.WaitFor(soon(t), regexp.MustCompile("^ready$"))
	require.NoError(t, err)
	require.Positive(t, p.Pid())

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, p.Wait(ended), context.Canceled, "it still runs")

	var exit *exec.ExitError
	require.ErrorAs(t, p.Stop(soon(t)), &exit)
	require.Equal(t, 4, exit.ExitCode())
	log, err := os.ReadFile(p.Log)
	require.NoError(t, err)
	require.Regexp(t, `(?s)^ +\d+\.\d\d ready\n +\d+\.\d\d bye\n$`, string(log))
	require.Len(t, p.Lines(), 2)
	p.Kill() // after the end: nothing happens
}

func TestProcThatDoesNotStop(t *testing.T) {
	l := open(t, Options{})
	p, err := l.Start(t.Context(), "deaf", "sh", "-c", "trap '' TERM"+idle(t))
	require.NoError(t, err)
	_, err = p.WaitFor(soon(t), regexp.MustCompile("^ready$"))
	require.NoError(t, err)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorContains(t, p.Stop(ended), "did not stop, killed")
	require.ErrorContains(t, p.Wait(t.Context()), "signal: killed")
}

func TestStartNamesWhatIsMissing(t *testing.T) {
	l := open(t, Options{})
	_, err := l.Start(t.Context(), "x", "no-such-program")
	require.ErrorContains(t, err, "start x")
	require.ErrorIs(t, err, exec.ErrNotFound)
}

// What is told later holds for the machine that it is told of, beside what the others were told before.
func TestTell(t *testing.T) {
	l := open(t, Options{ByMAC: map[string]DHCP{"52:54:00:00:00:01": {File: "first.efi"}, "52:54:00:00:00:02": {File: "second.efi"}}})
	require.NoError(t, l.Tell(t.Context(), map[string]DHCP{"52:54:00:00:00:02": {URL: "http://boot.lab.test/x"}, "52:54:00:00:00:03": {File: "third.efi"}}))
	config, err := os.ReadFile(l.options.Dir + "/dnsmasq.conf")
	require.NoError(t, err)
	for _, want := range []string{"first.efi", "third.efi", "http://boot.lab.test/x"} {
		require.Contains(t, string(config), want)
	}
	require.NotContains(t, string(config), "second.efi")
	require.ErrorContains(t, l.Tell(t.Context(), map[string]DHCP{"zz": {}}), "change what DHCP says")
}

// idle is the rest of a shell script that says ready and waits for ever, for a pipe that nobody else writes to.
func idle(t *testing.T) string {
	t.Helper()
	path := t.TempDir() + "/fifo"
	require.NoError(t, exec.CommandContext(t.Context(), "mkfifo", path).Run())
	return "; exec 3<>" + path + "; echo ready; while :; do read -r _ <&3; done"
}
