package integration

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/integration/customer"
	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/rig"
)

// trustCase is a machine that proves itself, or has us prove ourselves, in one
// of the ways there are.
type trustCase struct {
	name     string
	firmware lab.Firmware
	boot     lab.Source
	media    string // file that is put into the machine
	dhcp     lab.DHCP
	clock    time.Duration // how far its hardware clock is off
	year     int           // that its clock says instead
	trusts   string        // file with the authorities that its firmware trusts
	always   bool          // tried by make test, not only by make e2e-trust
	check    func(ctx context.Context, r *rig.Rig, m lab.Machine) error
}

// TestTrustBoots boots machines with every kind of credential, with clocks that
// are wrong, and by firmware and a stock iPXE that ask at URLs with a token.
func TestTrustBoots(t *testing.T) {
	r := newRig(t, rig.Options{})
	cases := trustCases(t, r)
	byMAC := map[string]lab.DHCP{}
	machines := make([]lab.Machine, len(cases))
	for i, c := range cases {
		machines[i] = c.machine(i)
		byMAC[machines[i].MAC] = c.dhcp
	}
	require.NoError(t, r.Lab.Tell(t.Context(), byMAC))
	seats := make(chan struct{}, 2) // machines at a time: each needs a processor
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			seats <- struct{}{}
			defer func() { <-seats }()
			twice(t, machines[i], func(ctx context.Context, m lab.Machine) error { return c.check(ctx, r, m) })
		})
	}
}

func (c trustCase) machine(i int) lab.Machine {
	n := 300 + i
	m := lab.Machine{
		Name: c.name, MAC: fmt.Sprintf("52:54:00:00:03:%02x", i), UUID: uuidOf(n),
		Firmware: c.firmware, Boot: c.boot, Media: c.media, Authorities: c.trusts,
	}
	switch {
	case c.year != 0:
		m.Clock = time.Date(c.year, 1, 2, 3, 4, 5, 0, time.UTC)
	case c.clock != 0:
		m.Clock = time.Now().Add(c.clock)
	}
	return m
}

// trustCases makes what the machines need, as an operator does, and lists them;
// without the whole matrix only those that are always tried.
func trustCases(t *testing.T, r *rig.Rig) []trustCase {
	t.Helper()
	folder := filepath.Dir(r.Server.Dir)
	roots := filepath.Join(folder, "roots.esl")
	_, err := r.Server.Nestctl(t.Context(), "ca", "export", "--format", "esl", "-o", roots)
	require.NoError(t, err)
	uefi := uefiURL(t, r, "firmware", rig.Set)
	legacy := strings.Replace(uefi.HTTPS, "boot."+rig.Domain, "boot."+rig.Domain+":"+rig.LegacyPort, 1)
	chain := chainURL(t, r, "provider")
	stock := r.Materials().Stock()
	set := downloaded(t, r, rig.Set, rig.Set+".iso")
	theirs := broughtAlong(t, r, "theirs", customer.RSA2048, "--ca")
	pinned := broughtAlong(t, r, "pinned", customer.P256, "--pin")
	stranger := broughtAlong(t, r, "stranger", customer.RSA2048, "")

	cases := []trustCase{
		{name: "uefi-https-url", firmware: lab.NewUEFI, boot: lab.HTTP, dhcp: lab.DHCP{URL: uefi.HTTPS}, trusts: roots, check: byUEFIURL, always: true},
		{name: "uefi-http-url", boot: lab.HTTP, dhcp: lab.DHCP{URL: uefi.HTTP}, check: byUEFIURL},
		{name: "uefi-https-url-legacy", boot: lab.HTTP, dhcp: lab.DHCP{URL: legacy}, trusts: roots, check: byUEFIURL},
		{name: "uefi-https-url-not-enrolled", firmware: lab.NewUEFI, boot: lab.HTTP, dhcp: lab.DHCP{URL: uefi.HTTPS}, check: firmwareRefuses},
		{name: "chain-http-url", firmware: lab.BIOS, boot: lab.CD, media: stock, dhcp: lab.DHCP{IPXE: chain.HTTP}, check: byChainURL},
		{name: "chain-https-url", firmware: lab.BIOS, boot: lab.CD, media: stock, dhcp: lab.DHCP{IPXE: chain.HTTPS}, check: stockIPXERefuses},
		{name: "customers-ca", firmware: lab.BIOS, boot: lab.CD, media: theirs, check: byTrusted("theirs"), always: true},
		{name: "pinned", firmware: lab.BIOS, boot: lab.CD, media: pinned, check: byTrusted("pinned")},
		{name: "not-registered", firmware: lab.BIOS, boot: lab.CD, media: stranger, check: refusedWith("unknown-ca")},
		{name: "T37-clock-13h-behind", firmware: lab.BIOS, boot: lab.CD, media: set, clock: -13 * time.Hour, check: bootsToTheEnd},
		{name: "T37-clock-13h-ahead", firmware: lab.BIOS, boot: lab.CD, media: set, clock: 13 * time.Hour, check: bootsToTheEnd},
		{name: "T37-clock-2000", firmware: lab.BIOS, boot: lab.CD, media: set, year: 2000, check: clockIsWrong},
		{name: "T37-clock-2040", firmware: lab.BIOS, boot: lab.CD, media: set, year: 2040, check: clockIsWrong},
	}
	if os.Getenv(whole) != "" {
		return cases
	}
	return slices.DeleteFunc(cases, func(c trustCase) bool { return !c.always })
}

// tokenURL is a URL with a secret token.
type tokenURL struct{ HTTP, HTTPS string }

func uefiURL(t *testing.T, r *rig.Rig, name, set string) tokenURL {
	t.Helper()
	var answer struct {
		URL struct {
			HTTP  string `json:"http_url_amd64"`
			HTTPS string `json:"https_url_amd64"`
		} `json:"uefi_http_boot_url"`
	}
	nestctlJSON(t, r.Server, &answer, "url", "create", "uefi", name, "--set", set, "--http")
	return tokenURL(answer.URL)
}

func chainURL(t *testing.T, r *rig.Rig, name string) tokenURL {
	t.Helper()
	var answer struct {
		URL struct {
			HTTP  string `json:"http_url"`
			HTTPS string `json:"https_url"`
		} `json:"ipxe_chain_url"`
	}
	nestctlJSON(t, r.Server, &answer, "url", "create", "chain", name, "--http")
	return tokenURL(answer.URL)
}

func nestctlJSON(t *testing.T, s *rig.Server, answer any, args ...string) {
	t.Helper()
	out, err := s.Nestctl(t.Context(), append(args, "-o", "json")...)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out, answer), "%s", out)
}

// broughtAlong makes a set as a customer does who keeps his key to himself, has
// its authority (--ca) or its certificate (--pin) registered, and returns the
// path of its CD.
func broughtAlong(t *testing.T, r *rig.Rig, name string, k customer.KeyType, flag string) string {
	t.Helper()
	folder := filepath.Join(filepath.Dir(r.Server.Dir), name)
	require.NoError(t, os.Mkdir(folder, 0o700))
	path := func(file string) string { return filepath.Join(folder, file) }
	ca, err := customer.NewRoot(k, "Authority of "+name)
	require.NoError(t, err)
	machine, err := ca.Issue(customer.Leaf{Name: name, Usage: x509.ExtKeyUsageClientAuth})
	require.NoError(t, err)
	require.NoError(t, customer.WriteCerts(path("ca.pem"), ca.Cert))
	require.NoError(t, customer.WriteCerts(path("machine.pem"), machine.Cert))
	require.NoError(t, customer.WriteKey(path("machine.key"), machine.Key))
	_, err = r.Server.Nestctl(t.Context(), "ca", "export", "-o", path("root.pem"))
	require.NoError(t, err)
	args := []string{
		"artifact", "build", "--name", name, "--cert", path("machine.pem"), "--key", path("machine.key"),
		"--root", path("root.pem"), "--url", "https://ipxe." + rig.Domain, "--out", path("set"),
	}
	for _, deb := range r.Materials().Debs() {
		args = append(args, "--base", deb)
	}
	_, err = r.Server.Nestctl(t.Context(), args...)
	require.NoError(t, err)
	if flag != "" {
		registered := map[string]string{"--ca": path("ca.pem"), "--pin": path("machine.pem")}[flag]
		_, err = r.Server.Nestctl(t.Context(), "trust", "add", name, flag, registered)
		require.NoError(t, err)
	}
	return path(filepath.Join("set", name+".iso"))
}

// byUEFIURL boots to the end by firmware that was told a URL with a token, and
// checks that bootd has seen it come by that.
func byUEFIURL(ctx context.Context, r *rig.Rig, m lab.Machine) error {
	if err := bootsToTheEnd(ctx, r, m); err != nil {
		return err
	}
	events, err := r.Server.Events(ctx)
	if err != nil {
		return err
	}
	return seen(events, "the file fetched by a UEFI HTTP Boot URL", func(e boot.Event) bool {
		return e.Stage == boot.StageArtifact && !e.Failed() && e.Name == rig.Set+".efi" && strings.Contains(e.Detail, "UEFI HTTP Boot URL")
	})
}

// byChainURL boots to the end by a stock iPXE that has no certificate.
func byChainURL(ctx context.Context, r *rig.Rig, m lab.Machine) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	p, err := r.Lab.Boot(ctx, m)
	if err != nil {
		return err
	}
	if err := finishes(ctx, p, m); err != nil {
		return err
	}
	events, err := r.Server.Events(ctx)
	if err != nil {
		return err
	}
	for _, steps := range rig.BootsOf(events, m.UUID) {
		want := slices.DeleteFunc(rig.Stages(m.Boot), func(s boot.Stage) bool { return s == boot.StageTLS }) // there was none
		if missing := rig.Missing(steps, want); len(missing) > 0 {
			return fmt.Errorf("its boot lacks the stages %v", missing)
		}
	}
	return seen(events, "the script of the chain URL", func(e boot.Event) bool {
		return e.Stage == boot.StageChain && !e.Failed() && e.Name == "provider"
	})
}

// byTrusted boots to the end with a certificate that a customer has issued.
func byTrusted(name string) func(context.Context, *rig.Rig, lab.Machine) error {
	return func(ctx context.Context, r *rig.Rig, m lab.Machine) error {
		if err := bootsToTheEnd(ctx, r, m); err != nil {
			return err
		}
		out, err := r.Server.Nestctl(ctx, "trust", "show", name, "-o", "json")
		if err != nil {
			return err
		}
		if !strings.Contains(string(out), m.UUID) {
			return fmt.Errorf("bootd has not taken down that machine %s came by %s: %s", m.UUID, name, out)
		}
		return nil
	}
}

// refusedWith checks that a machine is told no, that it says so and tries
// again, and that bootd has an event with the code.
func refusedWith(code string) func(context.Context, *rig.Rig, lab.Machine) error {
	return func(ctx context.Context, r *rig.Rig, m lab.Machine) error {
		if err := says(ctx, r, m, `nestboot: ipxe\.lab\.test did not let this machine boot, errno 0x`, `nestboot: trying again in 5 seconds`); err != nil {
			return err
		}
		events, err := r.Server.Events(ctx)
		if err != nil {
			return err
		}
		return seen(events, "a refusal with code "+code, func(e boot.Event) bool { return e.Stage == boot.StageScript && e.Code == code })
	}
}

// clockIsWrong boots a machine whose clock is so far off that it finds our
// certificate not valid: it says so in iPXE's words, tries again, and bootd's
// event names the clock.
func clockIsWrong(ctx context.Context, r *rig.Rig, m lab.Machine) error {
	err := says(ctx, r, m, untrusted, `nestboot: ipxe\.lab\.test did not let this machine boot, errno 0x`, `nestboot: trying again in 5 seconds`)
	if err != nil {
		return err
	}
	events, err := r.Server.Events(ctx)
	if err != nil {
		return err
	}
	return seen(events, "a failed handshake that names the clock", func(e boot.Event) bool {
		return e.Stage == boot.StageTLS && e.Code == "tls-failed" && strings.Contains(e.Error, "clock")
	})
}

// stockIPXERefuses shows what happens without a publicly trusted certificate.
func stockIPXERefuses(ctx context.Context, r *rig.Rig, m lab.Machine) error {
	return says(ctx, r, m, `https://boot\.lab\.test/chain/`, `ssion denied \(https?://ipxe\.org/0216eb3c\)`) // its console is 80 letters wide
}

// firmwareRefuses shows what happens without our root in the firmware.
func firmwareRefuses(ctx context.Context, r *rig.Rig, m lab.Machine) error {
	return says(ctx, r, m, `URI: https://boot\.lab\.test/uefi/`, `Error: Could not retrieve NBP file size from HTTP server`)
}

// says powers a machine on, waits for the lines on its console, and makes sure
// that it has booted nothing.
func says(ctx context.Context, r *rig.Rig, m lab.Machine, lines ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	p, err := r.Lab.Boot(ctx, m)
	if err != nil {
		return err
	}
	defer p.Kill()
	for _, want := range lines {
		if _, err := p.WaitFor(ctx, regexp.MustCompile(want)); err != nil {
			return err
		}
	}
	for _, line := range p.Lines() {
		if strings.HasPrefix(line.Text, "LAB-") {
			return fmt.Errorf("it has booted: %s", line.Text)
		}
	}
	return nil
}

func seen(events []boot.Event, what string, is func(boot.Event) bool) error {
	if slices.ContainsFunc(events, is) {
		return nil
	}
	return errors.New("bootd has no event of " + what)
}
