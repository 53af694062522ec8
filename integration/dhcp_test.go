package integration

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nestboot/nestboot/integration/lab"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// dhcpServers are the snippets of docs/dhcp and the daemons that read them.
var dhcpServers = []struct {
	snippet, daemon string
	check           []string          // arguments that make the daemon check the file named last
	slip, slipped   string            // a typing error that the check must find
	run             []string          // arguments that make it serve in the foreground, with FILE and DIR to fill in
	edit            map[string]string // what a throw-away server needs beside the snippet
	byClass         map[string]string // the rule for user class iPXE, as a comment of the snippet says it
}{
	{
		snippet: "dnsmasq.conf", daemon: "dnsmasq", check: []string{"--test", "-C"}, slip: "dhcp-boot=", slipped: "dhcp-boots=",
		run: []string{"--no-daemon", "--user=root", "--no-ping", "--no-resolv", "--dhcp-leasefile=DIR/leases", "-C", "FILE"},
		byClass: map[string]string{
			"\ndhcp-boot=tag:bios,rack1.undionly,boot.example.com,192.0.2.10": "",
			"#   dhcp-userclass":               "dhcp-userclass",
			"#   dhcp-boot=tag:bios,tag:!ipxe": "dhcp-boot=tag:bios,tag:!ipxe",
			"#   dhcp-boot=tag:bios,tag:ipxe":  "dhcp-boot=tag:bios,tag:ipxe",
		},
	},
	{
		snippet: "isc-dhcpd.conf", daemon: "dhcpd", check: []string{"-t", "-cf"}, slip: "next-server", slipped: "next-servers",
		run:  []string{"-f", "-lf", "DIR/leases", "-pf", "DIR/pid", "-cf", "FILE", "server"},
		edit: map[string]string{"option client-arch code": "ping-check false;\noption client-arch code"},
		byClass: map[string]string{
			`#   if exists user-class`:         `if exists user-class`,
			"\n  filename \"rack1.undionly\";": "",
		},
	},
	{
		snippet: "kea-dhcp4.conf", daemon: "kea-dhcp4", check: []string{"-t"}, slip: `"next-server"`, slipped: `"next-servers"`,
		run:  []string{"-c", "FILE"},
		edit: map[string]string{`"subnet4"`: `"lease-database": { "type": "memfile", "persist": false }, "subnet4"`},
		byClass: map[string]string{
			`"client-classes": [`: `"client-classes": [ { "name": "script", "test": "option[77].hex == 'iPXE'", "boot-file-name": "rack1.ipxe" },`,
			"rack1.undionly\"\n":  "rack1/undionly.kpxe\"\n",
		},
	},
}

func TestDHCPSnippetsPassTheirDaemons(t *testing.T) {
	for _, s := range dhcpServers {
		t.Run(s.daemon, func(t *testing.T) {
			good, err := os.ReadFile(filepath.Join("../docs/dhcp", s.snippet))
			require.NoError(t, err)
			bad := bytes.Replace(good, []byte(s.slip), []byte(s.slipped), 1)
			require.NotEqual(t, string(good), string(bad))
			check := func(text []byte) (string, error) {
				file := filepath.Join(t.TempDir(), s.snippet)
				require.NoError(t, os.WriteFile(file, text, 0o644))
				out, err := daemon(t, s.daemon, append(s.check, file)...).CombinedOutput()
				return string(out), err
			}
			out, err := check(good)
			require.NoError(t, err, out)
			out, err = check(bad)
			require.Error(t, err, "a typing error was not found: %s", out)
		})
	}
}

// A snippet can pass the check and still say nothing to a machine: ask the daemons what firmware would ask.
func TestDHCPSnippetsAnswerFirmware(t *testing.T) {
	const url = "http://boot.example.com/"
	for _, s := range dhcpServers {
		t.Run(s.daemon, func(t *testing.T) {
			card := wire(t)
			serve(t, s.snippet, s.daemon, s.run, s.edit)
			for _, tt := range []struct {
				arch               uint16
				class              string
				next, file, repeat string
			}{
				{0, "PXEClient:Arch:00000:UNDI:002001", "192.0.2.10", "rack1.undionly", ""},
				{7, "PXEClient:Arch:00007:UNDI:003016", "192.0.2.10", "rack1.efi", ""},
				{9, "PXEClient:Arch:00009:UNDI:003016", "192.0.2.10", "rack1.efi", ""},
				{11, "PXEClient:Arch:00011:UNDI:003016", "192.0.2.10", "rack1.arm64.efi", ""},
				{16, "HTTPClient:Arch:00016:UNDI:003016", "", url + "rack1.efi", "HTTPClient"},
				{19, "HTTPClient:Arch:00019:UNDI:003016", "", url + "rack1.arm64.efi", "HTTPClient"},
				{6, "PXEClient:Arch:00006:UNDI:003016", "", "", ""}, // UEFI for 32-bit x86 is not served
			} {
				offer := discover(t, card, tt.arch, tt.class, "")
				require.Equal(t, tt.file, offer.file, "arch %d", tt.arch)
				require.Equal(t, tt.repeat, offer.class, "arch %d", tt.arch)
				if tt.next != "" {
					require.Equal(t, tt.next, offer.next, "arch %d", tt.arch)
				}
			}
		})
	}
}

// Where undionly.kpxe is handed out, whoever says that it is an iPXE gets the script.
func TestDHCPSnippetsKnowUserClass(t *testing.T) {
	const class = "PXEClient:Arch:00000:UNDI:002001"
	for _, s := range dhcpServers {
		t.Run(s.daemon, func(t *testing.T) {
			card := wire(t)
			serve(t, s.snippet, s.daemon, s.run, s.edit, s.byClass)
			require.Equal(t, "rack1/undionly.kpxe", discover(t, card, 0, class, "").file)
			require.Equal(t, "rack1.ipxe", discover(t, card, 0, class, "iPXE").file)
		})
	}
}

// wire moves the test into a network of its own, in which the interface server (192.0.2.2) leads to a bare card, and
// returns a raw socket on that card. The test's thread is never unlocked, so it and the network end with the test.
func wire(t *testing.T) int {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		missing(t, "a network of its own needs root: "+err.Error())
	}
	for _, args := range []string{
		"link set lo up", "link add server type veth peer name card", "link set server up", "link set card up",
		"addr add 192.0.2.2/24 dev server",
	} {
		out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(args)...).CombinedOutput()
		require.NoError(t, err, "ip %s: %s", args, out)
	}
	card, err := net.InterfaceByName("card")
	require.NoError(t, err)
	const ip = unix.ETH_P_IP>>8 | unix.ETH_P_IP&0xff<<8 // network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, ip)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	require.NoError(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ip, Ifindex: card.Index}))
	require.NoError(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000}))
	return fd
}

// serve runs a daemon with its snippet, edited, until the test ends.
func serve(t *testing.T, snippet, name string, run []string, edits ...map[string]string) {
	text, err := os.ReadFile(filepath.Join("../docs/dhcp", snippet))
	require.NoError(t, err)
	for _, edit := range edits {
		for old, more := range edit {
			require.Contains(t, string(text), old)
			text = bytes.Replace(text, []byte(old), []byte(more), 1)
		}
	}
	dir := t.TempDir()
	file := filepath.Join(dir, snippet)
	require.NoError(t, os.WriteFile(file, text, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "leases"), nil, 0o644)) // dhcpd wants it to exist
	args := strings.Fields(strings.NewReplacer("FILE", file, "DIR", dir).Replace(strings.Join(run, " ")))
	cmd := daemon(t, name, args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, log.String())
		}
	})
}

type offer struct{ next, file, class string }

// discover sends a DHCPDISCOVER as firmware does, again and again until it is answered, for ten seconds.
func discover(t *testing.T, card int, arch uint16, class, user string) offer {
	request, xid := discovery(arch, class, user)
	frame := make([]byte, 2048)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		_, err := unix.Write(card, request)
		require.NoError(t, err)
		n, err := unix.Read(card, frame)
		for ; err == nil; n, err = unix.Read(card, frame) {
			// Ethernet 14, IPv4 20 and UDP 8 bytes; then op 2 is a reply.
			if n > 42+240 && frame[42] == 2 && bytes.Equal(frame[46:50], xid) {
				return parseOffer(frame[42:n])
			}
		}
		require.ErrorIs(t, err, unix.EAGAIN)
	}
	t.Fatalf("arch %d: no offer", arch)
	return offer{}
}

// discovery is an Ethernet frame; its UDP checksum is left out, as IPv4 allows.
func discovery(arch uint16, class, user string) (frame, xid []byte) {
	mac := []byte{2, 0, 0, 0, byte(len(user)), byte(arch)}
	xid = []byte{'n', 'b', byte(len(user)), byte(arch)}
	dhcp := make([]byte, 236) // RFC 2131, figure 1
	copy(dhcp, []byte{1, 1, 6, 0})
	copy(dhcp[4:], xid)
	dhcp[10] = 0x80 // answer by broadcast
	copy(dhcp[28:], mac)
	dhcp = append(dhcp, 99, 130, 83, 99, 53, 1, 1) // magic cookie, DHCPDISCOVER
	dhcp = append(append(dhcp, 60, byte(len(class))), class...)
	if user != "" {
		dhcp = append(append(dhcp, 77, byte(len(user))), user...) // as iPXE does, without RFC 3004's inner length
	}
	dhcp = append(dhcp, 93, 2, byte(arch>>8), byte(arch), 94, 3, 1, 3, 16)
	dhcp = append(dhcp, 55, 6, 1, 3, 6, 43, 66, 67, 255) // 60 is not asked for

	udp := binary.BigEndian.AppendUint16([]byte{0, 68, 0, 67}, uint16(8+len(dhcp)))
	udp = append(append(udp, 0, 0), dhcp...)
	ip := binary.BigEndian.AppendUint16([]byte{0x45, 0}, uint16(20+len(udp)))
	ip = append(ip, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255)
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	frame = append([]byte{255, 255, 255, 255, 255, 255}, mac...)
	return append(append(append(frame, 8, 0), ip...), udp...), xid
}

// parseOffer reads the file name where the firmware looks for it: option 67 or else the header.
func parseOffer(dhcp []byte) offer {
	text := func(b []byte) string { return strings.TrimRight(string(b), "\x00") }
	o := offer{next: net.IP(dhcp[20:24]).String(), file: text(dhcp[108:236])}
	for rest := dhcp[240:]; len(rest) > 1 && rest[0] != 255; {
		if rest[0] == 0 {
			rest = rest[1:]
			continue
		}
		end := min(len(rest), 2+int(rest[1]))
		switch rest[0] {
		case 60:
			o.class = text(rest[2:end])
		case 67:
			o.file = text(rest[2:end])
		}
		rest = rest[end:]
	}
	return o
}

// daemon is a command of this machine or of the lab's materials.
func daemon(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	for _, candidate := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			cmd = exec.CommandContext(t.Context(), path, args...)
		}
	}
	if cmd.Err != nil {
		m, err := lab.FindMaterials()
		if err != nil {
			missing(t, name+": "+err.Error())
		}
		cmd = m.Command(t.Context(), "usr/sbin/"+name, args...)
	}
	// Kea wants folders that only its installation makes.
	cmd.Env = append(os.Environ(), "KEA_LOCKFILE_DIR=none", "KEA_PIDFILE_DIR="+t.TempDir())
	return cmd
}

// missing skips a test on a laptop and fails it where everything must be there.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}
