package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/rig"
)

// whole is the environment variable by which `make e2e-artifacts` asks for
// every way to boot with both versions of iPXE. Without it the versions take
// turns, and what differs little from another way is left out.
const whole = "NESTBOOT_WHOLE_MATRIX"

// way is one way in which firmware loads a file of a set.
type way struct {
	name     string
	firmware lab.Firmware
	boot     lab.Source
	media    string                    // ending of the file that is put into the machine; none when empty
	dhcp     func(set string) lab.DHCP // what its firmware is told when it boots from the network
	similar  bool                      // to another way; efi is booted by TestMachinesBoot
}

func ways() []way {
	return []way{
		{name: "undionly", firmware: lab.BIOS, dhcp: rig.SingleFiles},
		{name: "efi-pxe", firmware: lab.UEFI, dhcp: rig.SingleFiles, similar: true},
		{name: "efi-http", firmware: lab.UEFI, boot: lab.HTTP, dhcp: rig.SingleFiles, similar: true},
		{name: "iso-cd-bios", firmware: lab.BIOS, boot: lab.CD, media: ".iso"},
		{name: "iso-cd-uefi", firmware: lab.UEFI, boot: lab.CD, media: ".iso", similar: true},
		{name: "iso-usb-bios", firmware: lab.BIOS, boot: lab.USB, media: ".iso", similar: true},
		{name: "iso-usb-uefi", firmware: lab.UEFI, boot: lab.USB, media: ".iso"},
		{name: "raw-bios", firmware: lab.BIOS, boot: lab.Disk, media: ".raw"},
		{name: "raw-uefi", firmware: lab.UEFI, boot: lab.Disk, media: ".raw", similar: true},
		{name: "pxelinux", firmware: lab.BIOS, dhcp: func(set string) lab.DHCP { return lab.DHCP{BIOS: set + "/lpxelinux.0"} }},
		{name: "snponly", firmware: lab.UEFI, dhcp: func(set string) lab.DHCP { return lab.DHCP{File: set + "/snponly.efi"} }},
		{name: "kpxe", firmware: lab.BIOS, similar: true, dhcp: func(set string) lab.DHCP {
			return lab.DHCP{BIOS: set + "/undionly.kpxe", IPXE: set + ".ipxe", PlainROM: true}
		}},
		// The ROM announces user class iPXE, is handed the script, lacks our trust and chains into the binary.
		{name: "kpxe-behind-ipxe", firmware: lab.BIOS, dhcp: func(set string) lab.DHCP {
			return lab.DHCP{BIOS: set + "/undionly.kpxe", IPXE: set + ".ipxe"}
		}},
		// There is no image for arm64 here: being told so is the end of that boot.
		{name: "arm64-efi-pxe", firmware: lab.ARM64, dhcp: rig.SingleFiles},
	}
}

// bootCase is a machine that boots with a set.
type bootCase struct {
	machine lab.Machine
	set     string
	media   string // file of the set that is put into the machine; none when empty
}

// bootCases are the ways to be tried, with sets of the given names, and what
// DHCP tells their machines.
func bootCases(sets ...string) (cases []bootCase, byMAC map[string]lab.DHCP) {
	byMAC = map[string]lab.DHCP{}
	add := func(w way, set string) {
		n := 100 + len(cases)
		c := bootCase{set: set, machine: lab.Machine{
			Name: w.name + "-" + set, MAC: fmt.Sprintf("52:54:00:00:01:%02x", n), UUID: uuidOf(n), Firmware: w.firmware, Boot: w.boot,
		}}
		if w.media != "" {
			c.media = set + w.media
		}
		if w.dhcp != nil {
			byMAC[c.machine.MAC] = w.dhcp(set)
		}
		cases = append(cases, c)
	}
	for _, w := range ways() {
		switch {
		case os.Getenv(whole) != "":
			for _, set := range sets {
				add(w, set)
			}
		case !w.similar:
			add(w, sets[len(cases)%len(sets)])
		}
	}
	return cases, byMAC
}

// TestArtifactsBoot boots machines from every format of a set, in every way in
// which firmware loads it, to the set's certificate at /ipxe/boot and a
// finished run of the real Ignition.
func TestArtifactsBoot(t *testing.T) {
	const newer, older = "newer", "older"
	cases, byMAC := bootCases(newer, older)
	r := newRig(t, rig.Options{ByMAC: byMAC})
	versions := baseVersions(t, r)
	require.GreaterOrEqual(t, len(versions), 2, "two versions of iPXE side by side")
	version := map[string]string{newer: versions[0], older: versions[len(versions)-1]}
	for set, base := range version {
		_, err := r.Server.Nestctl(t.Context(), "artifact", "create", set, "--serve", rig.Serve, "--base-version", base)
		require.NoError(t, err)
	}
	for i, c := range cases {
		if c.media != "" {
			cases[i].machine.Media = downloaded(t, r, c.set, c.media)
		}
	}
	seats := make(chan struct{}, 2) // machines at a time: each needs a processor
	for _, c := range cases {
		t.Run(c.machine.Name, func(t *testing.T) {
			t.Parallel()
			seats <- struct{}{}
			defer func() { <-seats }()
			twice(t, c.machine, func(ctx context.Context, m lab.Machine) error { return c.boots(ctx, r, m, version[c.set]) })
		})
	}
}

// downloaded returns the path of a set's file, fetched as an operator does.
func downloaded(t *testing.T, r *rig.Rig, set, file string) string {
	t.Helper()
	path := filepath.Join(filepath.Dir(r.Server.Dir), file)
	_, err := r.Server.Nestctl(t.Context(), "artifact", "download", set, file, "-o", path, "--force")
	require.NoError(t, err)
	return path
}

// boots powers the machine on, waits for the last line of interest, and checks
// that it came with its set's certificate.
func (c bootCase) boots(ctx context.Context, r *rig.Rig, m lab.Machine, version string) error {
	patience := patience
	if m.Firmware == lab.ARM64 {
		patience = 5 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	p, err := r.Lab.Boot(ctx, m)
	if err != nil {
		return err
	}
	defer p.Kill()
	if m.Firmware == lab.ARM64 {
		_, err = p.WaitFor(ctx, regexp.MustCompile(`^nestboot: .*\(`+boot.CodeWrongArch+`\)`))
	} else {
		err = finishes(ctx, p, m)
	}
	if err != nil {
		return err
	}
	if _, err := p.WaitFor(ctx, banner(version)); err != nil {
		return fmt.Errorf("it did not boot with its set's iPXE: %w", err)
	}
	if err := cameWith(ctx, r, c.set, m); err != nil {
		return err
	}
	if m.Firmware == lab.ARM64 {
		return nil
	}
	events, err := r.Server.Events(ctx)
	if err != nil {
		return err
	}
	return wholeTimeline(events, m)
}

// banner is how iPXE of a version greets. At the end of undionly.kpxe's version
// is a mark instead: a comma and six digits of the root's fingerprint.
func banner(version string) *regexp.Regexp {
	begin := version[:max(len(version)-7, 0)]
	return regexp.MustCompile("^iPXE (" + regexp.QuoteMeta(version) + "|" + regexp.QuoteMeta(begin) + ",[0-9a-f]{6}) ")
}

// cameWith checks that the machine was answered at /ipxe/boot, and that it
// proved itself with the set's certificate.
func cameWith(ctx context.Context, r *rig.Rig, set string, m lab.Machine) error {
	events, err := r.Server.Events(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(events, func(e boot.Event) bool { return e.Stage == boot.StageScript && e.Machine == m.UUID }) {
		return fmt.Errorf("machine %s has no event of stage %s", m.UUID, boot.StageScript)
	}
	out, err := r.Server.Nestctl(ctx, "artifact", "show", set, "-o", "json")
	if err != nil {
		return err
	}
	var answer struct {
		Set struct {
			UsedBy []struct {
				Machine string `json:"machine"`
			} `json:"used_by"`
		} `json:"ipxe_boot_artifact"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return fmt.Errorf("read set %s: %w", set, err)
	}
	for _, use := range answer.Set.UsedBy {
		if use.Machine == m.UUID {
			return nil
		}
	}
	return fmt.Errorf("set %s was not used by machine %s: %s", set, m.UUID, out)
}

// baseVersions are the versions of iPXE that sets can be made of, newest first.
func baseVersions(t *testing.T, r *rig.Rig) []string {
	t.Helper()
	out, err := r.Server.Nestctl(t.Context(), "base", "list", "-o", "json")
	require.NoError(t, err)
	var answer struct {
		Versions []struct {
			Version string `json:"version"`
		} `json:"versions"`
	}
	require.NoError(t, json.Unmarshal(out, &answer))
	var versions []string
	for _, v := range answer.Versions {
		versions = append(versions, v.Version)
	}
	return versions
}
