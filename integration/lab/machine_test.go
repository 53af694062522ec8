package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cavaliergopher/cpio"
	"github.com/stretchr/testify/require"
)

const (
	testUUID = "4c4c4544-0042-3510-8054-b4c04f573232"
	testUnit = "[Service]\nExecStart=/usr/bin/curl --fail --silent --header @/etc/token --request POST http://boot.lab.test/done?%%41\n"
)

// TestMachines powers on all of its machines at once: most of a boot is waiting.
func TestMachines(t *testing.T) {
	if testing.Short() {
		t.Skip("boots virtual machines")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		lack(t, err.Error())
	}
	l := open(t, Options{
		Materials: needMaterials(t),
		Capture:   true,
		Domain:    "lab.test",
		Addresses: []string{"10.77.0.2/24"},
		DHCP:      DHCP{URL: "http://boot.lab.test/rack1/snponly.efi"},
		ByMAC: map[string]DHCP{
			"52:54:00:00:00:02": {NextServer: "10.77.0.2", File: "rack2/snponly.efi"},
			"52:54:00:00:00:03": {NextServer: "10.77.0.2", BIOS: "rack2.undionly"},
		},
	})
	server := startBootServer(t)
	ctx := soon(t)
	byHTTP, err := l.Boot(ctx, Machine{Name: "http", MAC: "52:54:00:00:00:01", UUID: testUUID, Serial: "SN-1", Boot: HTTP})
	require.NoError(t, err)
	byPXE, err := l.Boot(ctx, Machine{Name: "pxe", MAC: "52:54:00:00:00:02", UUID: testUUID, Boot: PXE})
	require.NoError(t, err)
	byROM, err := l.Boot(ctx, Machine{Name: "rom", MAC: "52:54:00:00:00:03", UUID: testUUID, Firmware: BIOS, Boot: PXE})
	require.NoError(t, err)
	kernel, initrd, err := BuildGuest(l.options.Materials, t.TempDir())
	require.NoError(t, err)
	pointer := `{"ignition": {"version": "3.3.0", "config": {"replace": {"source": "http://boot.lab.test/ignition"}}}}`
	whole := bootGuest(ctx, t, l, kernel, withConfig(t, initrd, pointer))
	unconfigured := bootGuest(ctx, t, l, kernel, initrd)
	broken := bootGuest(ctx, t, l, kernel, withConfig(t, initrd, "{"))

	t.Run("guest without config", func(t *testing.T) {
		guestFails(ctx, t, unconfigured, "LAB-FAIL no /usr/share/oem/config.ign: the boot server gave no per-machine initrd")
	})
	t.Run("guest with broken config", func(t *testing.T) { guestFails(ctx, t, broken, "LAB-FAIL ignition fetch rc=1") })
	t.Run("guest", func(t *testing.T) { guestRunsIgnition(ctx, t, whole, server) })
	t.Run("firmware by HTTP", func(t *testing.T) { firmwareHTTP(ctx, t, byHTTP, server) })
	t.Run("firmware by PXE", func(t *testing.T) {
		asked := receive(ctx, t, server.tftp) + receive(ctx, t, server.tftp)
		require.Contains(t, asked, "\x00\x01rack2/snponly.efi\x00octet\x00")
		require.Contains(t, asked, "\x00\x01rack2.undionly\x00octet\x00")
		byPXE.Kill()
		byROM.Kill()
	})
}

// TestMachineBootsMedia boots a sector that prints a word from everything that SeaBIOS takes for a disk.
func TestMachineBootsMedia(t *testing.T) {
	if testing.Short() {
		t.Skip("boots virtual machines")
	}
	l := open(t, Options{Materials: needMaterials(t)})
	sector := make([]byte, 1<<20)
	copy(sector, "\x31\xc0\x8e\xd8\xbe\x11\x7c"+ // xor ax,ax; mov ds,ax; mov si,text
		"\xac\xb4\x0e\xcd\x10\x3c\x0a\x75\xf7\xf4"+ // next: lodsb; mov ah,14; int 16 (write); cmp al,10; jne next; hlt
		"LAB-SECTOR\r\n") // 0x7c11
	copy(sector[510:], "\x55\xaa")
	media := filepath.Join(t.TempDir(), "media")
	require.NoError(t, os.WriteFile(media, sector, 0o600))
	for name, source := range map[string]Source{"usb": USB, "disk": Disk} {
		p, err := l.Boot(soon(t), Machine{Name: name, MAC: "52:54:00:00:00:01", UUID: testUUID, Firmware: BIOS, Boot: source, Media: media})
		require.NoError(t, err)
		_, err = p.WaitFor(soon(t), regexp.MustCompile("LAB-SECTOR"))
		require.NoError(t, err)
		p.Kill()
	}
}

// Real firmware powers up, gets an address and asks for what DHCP named.
func firmwareHTTP(ctx context.Context, t *testing.T, p *Proc, server *bootServer) {
	require.Equal(t, "HEAD boot.lab.test/rack1/snponly.efi", receive(ctx, t, server.head))
	_, err := p.WaitFor(ctx, regexp.MustCompile(`URI: http://boot.lab.test/rack1/snponly.efi`))
	require.NoError(t, err)
	require.NoError(t, p.Stop(ctx))

	packets, err := os.ReadFile(filepath.Join(filepath.Dir(p.Log), "http.pcap"))
	require.NoError(t, err)
	require.Equal(t, []byte{0xd4, 0xc3, 0xb2, 0xa1}, packets[:4], "libpcap's magic number")
	require.Contains(t, string(packets), "HTTPClient:Arch:00016")
}

// The guest runs Ignition and phones home as the unit says, and shows no secret.
func guestRunsIgnition(ctx context.Context, t *testing.T, p *Proc, server *bootServer) {
	end, err := p.WaitFor(ctx, regexp.MustCompile("^LAB-(DONE|FAIL)"))
	require.NoError(t, err)
	require.Equal(t, "LAB-DONE rc=0", end.Text)
	require.Equal(t, "CANARY %41", receive(ctx, t, server.done))
	require.NoError(t, p.Wait(ctx), "it powers itself off")
	for _, line := range []string{
		`LAB-CMDLINE ` + GuestArgs,
		`LAB-ADDR 10\.77\.0\.\d+`,
		`LAB-IGNITION-FETCH rc=0`,
		`LAB-IGNITION-FILES rc=0`,
		`LAB-FILE /etc/hostname 0644 8 2acc8ec82f560ed24dc79d2eea0588ec221cbd29c830facb55457a546b8cca72`,
		`LAB-TEXT node-one`,
		`LAB-FILE /etc/token 0600 15 [0-9a-f]{64}`,
		`LAB-HOSTNAME node-one`,
	} {
		_, err := p.WaitFor(ctx, regexp.MustCompile("^"+line+"$"))
		require.NoError(t, err)
	}
	log, err := os.ReadFile(p.Log)
	require.NoError(t, err)
	require.NotContains(t, string(log), "CANARY")
	require.NotContains(t, string(log), "/etc/resolv.conf", "only what Ignition wrote is shown")
}

// Whatever is wrong, the machine says so and powers itself off.
func guestFails(ctx context.Context, t *testing.T, p *Proc, want string) {
	end, err := p.WaitFor(ctx, regexp.MustCompile("^LAB-(DONE|FAIL)"))
	require.NoError(t, err)
	require.Equal(t, want, end.Text)
	require.NoError(t, p.Wait(ctx))
}

// bootGuest starts the guest by QEMU's own loader, to save the firmware's time.
func bootGuest(ctx context.Context, t *testing.T, l *Lab, kernel, initrd string) *Proc {
	t.Helper()
	tap, err := l.addTap(ctx)
	require.NoError(t, err)
	m := Machine{Name: "guest-" + tap, MAC: "52:54:00:00:01:0" + tap[3:], UUID: testUUID}
	args := append(l.hardware(m, tap), "-kernel", kernel, "-initrd", initrd, "-append", GuestArgs)
	p, err := l.Start(ctx, m.Name, "qemu-system-x86_64", args...)
	require.NoError(t, err)
	return p
}

// withConfig returns the path of a copy of initrd with config where a boot server's per-machine initrd puts it.
func withConfig(t *testing.T, initrd, config string) string {
	t.Helper()
	if config == "" {
		return initrd
	}
	content, err := os.ReadFile(initrd)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "initrd")
	file, err := os.Create(path)
	require.NoError(t, err)
	defer file.Close()
	// The kernel wants archives at multiples of 4.
	_, err = file.Write(append(content, make([]byte, 4-len(content)%4)...))
	require.NoError(t, err)
	out := newInitrd(file)
	out.add("usr/share/oem/config.ign", cpio.FileMode(0o600), []byte(config))
	require.NoError(t, out.close())
	return path
}

// bootServer tells what it was asked.
type bootServer struct{ head, done, tftp chan string }

// startBootServer answers on the lab's addresses until the test ends.
func startBootServer(t *testing.T) *bootServer {
	t.Helper()
	s := &bootServer{head: make(chan string, 8), done: make(chan string, 8), tftp: make(chan string, 64)}
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "10.77.0.2:69")
	require.NoError(t, err)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", ServerIP+":80")
	require.NoError(t, err)
	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	running.Go(func() {
		// Firmware asks again when nobody answers: only what is new counts.
		for asked := map[string]bool{}; ; {
			packet := make([]byte, 512)
			n, from, err := conn.ReadFrom(packet)
			if err != nil {
				return
			}
			if machine, _, _ := net.SplitHostPort(from.String()); !asked[machine] {
				asked[machine] = true
				s.tftp <- string(packet[:n])
			}
		}
	})
	t.Cleanup(func() {
		_ = server.Close()
		_ = conn.Close()
		running.Wait()
	})
	return s
}

func (s *bootServer) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("HEAD /rack1/snponly.efi", func(w http.ResponseWriter, r *http.Request) {
		s.head <- r.Method + " " + r.Host + r.URL.Path
		http.NotFound(w, r)
	})
	mux.HandleFunc("GET /ignition", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"ignition": {"version": "3.3.0"}, "storage": {"files": [
			{"path": "/etc/hostname", "mode": 420, "contents": {"source": "data:,node-one"}},
			{"path": "/etc/token", "mode": 384, "contents": {"source": "data:,X-Token:%%20CANARY"}}]},
			"systemd": {"units": [{"name": "nestboot-done.service", "contents": %q}]}}`, testUnit)
	})
	mux.HandleFunc("POST /done", func(_ http.ResponseWriter, r *http.Request) {
		s.done <- r.Header.Get("X-Token") + " " + r.URL.RawQuery
	})
	return mux
}

func receive(ctx context.Context, t *testing.T, from <-chan string) string {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-ctx.Done():
		require.NoError(t, context.Cause(ctx))
		return ""
	}
}

// What an operator enrols reaches the firmware by QEMU's fw_cfg, and only where there is firmware to read it.
func TestAuthoritiesAreEnrolled(t *testing.T) {
	l := &Lab{options: Options{Dir: t.TempDir(), Materials: needMaterials(t)}}
	for _, f := range []Firmware{UEFI, NewUEFI} {
		args, err := l.firmware(Machine{Name: "m", Firmware: f, Authorities: "/roots.esl"})
		require.NoError(t, err)
		require.Contains(t, args, "name=etc/edk2/https/cacerts,file=/roots.esl")
		args, err = l.firmware(Machine{Name: "m", Firmware: f})
		require.NoError(t, err)
		require.NotContains(t, strings.Join(args, " "), "cacerts")
	}
	args, err := l.firmware(Machine{Name: "m", Firmware: BIOS, Authorities: "/roots.esl"})
	require.NoError(t, err)
	require.Empty(t, args)
}
