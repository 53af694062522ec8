// Command record-quirks boots real firmware and real clients against a small
// HTTP server that keeps what they send, byte by byte, and writes each kind of
// request into httpboot/testdata/quirks. The tests there replay them. It takes
// about five minutes; run it when a client is new, not at each build.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nestboot/nestboot/ignition"
	"github.com/nestboot/nestboot/integration/lab"
)

const limit = 20 * time.Minute

func main() {
	out := flag.String("out", "httpboot/testdata/quirks", "the `folder` to write into")
	flag.Parse()
	err := lab.Enter()
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		err = run(ctx, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "record-quirks:", err)
		os.Exit(1)
	}
}

// The machines, each with what DHCP tells it.
var (
	biosMAC, oldMAC, newMAC, grubMAC = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03", "52:54:00:00:00:04"

	told = map[string]lab.DHCP{
		biosMAC: {IPXE: at("boot.ipxe")},
		oldMAC:  {URL: at("snponly.efi")},
		newMAC:  {URL: at("snponly.efi")},
		grubMAC: {URL: at("grub.efi")},
	}
)

func at(name string) string { return "http://" + lab.ServerIP + "/" + name }

func run(ctx context.Context, out string) error {
	dir, err := os.MkdirTemp("", "nestboot-quirks-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m, err := lab.FindMaterials()
	if err != nil {
		return err
	}
	files, err := makeFiles(ctx, m, dir)
	if err != nil {
		return err
	}
	l, err := lab.New(ctx, lab.Options{Dir: dir, Materials: m, ByMAC: told})
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // the namespace goes with the program
	r := &recorder{files: files, out: out, seen: map[string]bool{}, news: make(chan struct{}, 1)}
	if err := r.serve(ctx); err != nil {
		return err
	}
	for _, b := range []struct {
		machine lab.Machine
		until   []string // requests
	}{
		{lab.Machine{Name: "bios", MAC: biosMAC, Firmware: lab.BIOS}, []string{"ipxe-1.0.0", "ipxe-1.21.1", "ipxe-2.0.0", "ignition"}},
		{lab.Machine{Name: "ovmf-2022", MAC: oldMAC, Firmware: lab.UEFI, Boot: lab.HTTP}, []string{"ovmf-2022-head", "ovmf-2022-get"}},
		{lab.Machine{Name: "ovmf-2026", MAC: newMAC, Firmware: lab.NewUEFI, Boot: lab.HTTP}, []string{"ovmf-2026-head", "ovmf-2026-get"}},
		{lab.Machine{Name: "grub", MAC: grubMAC, Firmware: lab.UEFI, Boot: lab.HTTP}, []string{"grub-2.06"}},
	} {
		r.firmware = b.machine.Name
		b.machine.UUID = "4c4c4544-0042-3510-8052-b4c04f564433"
		p, err := l.Boot(ctx, b.machine)
		if err != nil {
			return err
		}
		err = r.wait(ctx, b.until, p)
		p.Kill()
		if err != nil {
			for _, line := range p.Lines() {
				fmt.Fprintln(os.Stderr, b.machine.Name, line.Text)
			}
			return fmt.Errorf("%s: %w", b.machine.Name, err)
		}
	}
	return r.curl(ctx, m)
}

// curl asks as operators and scripts do.
func (r *recorder) curl(ctx context.Context, m lab.Materials) error {
	for name, args := range map[string][]string{
		"get": nil, "head": {"--head"}, "http10": {"--http1.0", "--header", "Connection: keep-alive"},
		"resume": {"--continue-at", "4"}, "etag": {"--header", `If-None-Match: "0"`},
	} {
		r.firmware = "curl-" + name
		cmd := m.Command(ctx, "usr/bin/curl", append(args, "--silent", "--show-error", "--output", os.DevNull, at("snponly.efi"))...)
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("curl %s: %w: %s", name, err, text)
		}
	}
	return nil
}

// makeFiles makes what is served. A script is told apart by the version of who
// asks: each iPXE loads the next one, the last one the guest.
func makeFiles(ctx context.Context, m lab.Materials, dir string) (map[string][]byte, error) {
	kernel, initrd, err := lab.BuildGuest(m, dir)
	if err != nil {
		return nil, err
	}
	pointer := `{"ignition":{"version":"3.3.0","config":{"replace":{"source":"` + at("config.ign") + `","httpHeaders":[{"name":"Authorization","value":"Bearer x"}]}}}}`
	config, err := ignition.Initrd([]byte(pointer))
	if err != nil {
		return nil, err
	}
	grub := filepath.Join(dir, "grub.efi")
	early := filepath.Join(dir, "early.cfg")
	if err := os.WriteFile(early, []byte("net_bootp\nset root=(http,"+lab.ServerIP+")\nconfigfile /grub.cfg\n"), 0o600); err != nil {
		return nil, err
	}
	image := m.Command(ctx, "usr/bin/grub-mkimage", "-d", m.Path("usr/lib/grub/x86_64-efi"), "-O", "x86_64-efi", "-o", grub,
		"-p", "(http,"+lab.ServerIP+")/grub", "-c", early, "efinet", "net", "http", "normal", "configfile", "echo")
	if text, err := image.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("grub-mkimage: %w: %s", err, text)
	}
	files := map[string][]byte{
		"boot.ipxe 1.0.0":  []byte("#!ipxe\nchain " + at("undionly.kpxe") + "\n"),
		"boot.ipxe 1.21.1": []byte("#!ipxe\nchain " + at("undionly2.kpxe") + "\n"),
		"boot.ipxe 2.0.0": []byte("#!ipxe\nkernel " + at("kernel") + " " + lab.GuestArgs + "\ninitrd " + at("initrd") + "\ninitrd " +
			at("machine-initrd") + "\nboot\n"),
		"machine-initrd": config,
		"config.ign":     []byte(`{"ignition":{"version":"3.3.0"}}`),
		"grub.cfg":       []byte("echo hello\n"),
	}
	for name, path := range map[string]string{
		"kernel": kernel, "initrd": initrd, "grub.efi": grub, "snponly.efi": m.IPXE("snponly.efi"),
		"undionly.kpxe": m.IPXE("undionly.kpxe"), "undionly2.kpxe": filepath.Join(m.IPXE2Dir(), "undionly.kpxe"),
	} {
		if files[name], err = os.ReadFile(path); err != nil {
			return nil, err
		}
	}
	return files, nil
}
