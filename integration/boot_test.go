package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/rig"
	"github.com/nestboot/nestboot/inventory"
)

// patience is for a machine on an emulated processor, beside others.
const patience = 3 * time.Minute

const foreignMAC = "52:54:00:00:00:03"

var machines = map[string]lab.Machine{
	"pxe":     {Name: "pxe", MAC: "52:54:00:00:00:01", UUID: uuidOf(1), Serial: "PXE1", Boot: lab.PXE},
	"http":    {Name: "http", MAC: "52:54:00:00:00:02", UUID: uuidOf(2), Serial: "HTTP1", Boot: lab.HTTP},
	"foreign": {Name: "foreign-machine", MAC: foreignMAC, UUID: uuidOf(3), Serial: "F1", Boot: lab.PXE},
	"killed":  {Name: "killed", MAC: "52:54:00:00:00:04", UUID: uuidOf(4), Serial: "K1", Boot: lab.PXE},
}

// TestMachinesBoot boots virtual bare-metal machines with real firmware
// through bootd as it is built, to a finished run of the real Ignition.
func TestMachinesBoot(t *testing.T) {
	r := newRig(t, rig.Options{Foreign: foreignMAC})
	t.Run("machines", func(t *testing.T) {
		for _, name := range []string{"pxe", "http"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				twice(t, machines[name], func(ctx context.Context, m lab.Machine) error { return bootsToTheEnd(ctx, r, m) })
			})
		}
		t.Run("T15 foreign trust root", func(t *testing.T) {
			t.Parallel()
			twice(t, machines["foreign"], func(ctx context.Context, m lab.Machine) error { return stopsAtTLS(ctx, r, m) })
		})
	})
	t.Run("kill -9 in mid-transfer", func(t *testing.T) {
		before := listed(t, r)
		twice(t, machines["killed"], func(ctx context.Context, m lab.Machine) error { return bootsAfterKill(ctx, r, m) })
		after := listed(t, r)
		for id, m := range before {
			require.Equal(t, m, after[id], "state is intact")
		}
		require.Equal(t, inventory.StatusReady, after[uuidOf(4)].Status)
	})
	t.Run("T19 T20 no secret is in the open", func(t *testing.T) { noSecretInTheOpen(t, r) })
}

// bootsToTheEnd powers a machine on and waits for all that a good boot shows:
// Ignition's files on the console, the phone-home, and every stage with its
// duration in bootd's timeline.
func bootsToTheEnd(ctx context.Context, r *rig.Rig, m lab.Machine) error {
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
	return wholeTimeline(events, m)
}

// finishes waits for the lines that the guest prints at the end of its boot.
func finishes(ctx context.Context, p *lab.Proc, m lab.Machine) error {
	for _, want := range []string{
		"^LAB-IGNITION-FETCH rc=0$", "^LAB-IGNITION-FILES rc=0$",
		"^LAB-FILE " + rig.MessagePath + " 0?644 ", "^LAB-TEXT " + rig.Message + "$",
		"^LAB-FILE /etc/nestboot/done.header 0?600 ",
		"^LAB-HOSTNAME " + boot.DefaultName(m.MAC) + "$", "^LAB-DONE rc=0$",
	} {
		line, err := p.WaitFor(ctx, regexp.MustCompile(want+"|^LAB-FAIL"))
		if err != nil {
			return err
		}
		if strings.HasPrefix(line.Text, "LAB-FAIL") {
			return fmt.Errorf("waiting for %q: %s", want, line.Text)
		}
	}
	return nil
}

// wholeTimeline checks that one boot of the machine has every stage.
func wholeTimeline(events []boot.Event, m lab.Machine) error {
	var problems []error
	for id, steps := range rig.BootsOf(events, m.UUID) {
		missing := rig.Missing(steps, rig.Stages(m.Boot))
		for _, e := range steps {
			// The start of a transfer takes no time; everything else does.
			if e.Stage != boot.StageTFTPRequest && e.Duration <= 0 {
				problems = append(problems, fmt.Errorf("boot %s: stage %s has no duration", id, e.Stage))
			}
			if e.Machine != "" && e.MAC != m.MAC {
				problems = append(problems, fmt.Errorf("boot %s: stage %s cannot be found by its MAC address", id, e.Stage))
			}
		}
		if len(missing) == 0 {
			return errors.Join(problems...)
		}
		problems = append(problems, fmt.Errorf("boot %s lacks the stages %v", id, missing))
	}
	return fmt.Errorf("machine %s has no whole boot in the timeline: %w", m.UUID, errors.Join(problems...))
}

// stopsAtTLS boots a machine with an artifact of another server, whose root is
// not ours: it must stop at TLS, say so on its console, back off, and be seen.
func stopsAtTLS(ctx context.Context, r *rig.Rig, m lab.Machine) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	p, err := r.Lab.Boot(ctx, m)
	if err != nil {
		return err
	}
	for _, want := range []string{
		untrusted,
		`nestboot: ipxe\.lab\.test did not let this machine boot, errno 0x`,
		`nestboot: trying again in 5 seconds`,
		`nestboot: trying again in 10 seconds`, // the pause grows
	} {
		if _, err := p.WaitFor(ctx, regexp.MustCompile(want)); err != nil {
			return err
		}
	}
	p.Kill()
	for _, line := range p.Lines() {
		if strings.HasPrefix(line.Text, "LAB-") {
			return fmt.Errorf("a machine that does not trust us has booted: %s", line.Text)
		}
	}
	events, err := r.Server.Events(ctx)
	if err != nil {
		return err
	}
	for _, e := range events {
		if e.Stage == boot.StageTLS && e.Code == "tls-failed" && strings.Contains(e.Error, "trusts another root") {
			return nil
		}
	}
	return errors.New("bootd has no event of the failed TLS handshake")
}

// bootsAfterKill kills bootd while it sends an initrd, starts it again, and
// waits for the machine to boot by itself.
func bootsAfterKill(ctx context.Context, r *rig.Rig, m lab.Machine) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	p, err := r.Lab.Boot(ctx, m)
	if err != nil {
		return err
	}
	// iPXE ends the line when the download has ended: this is in its middle.
	if _, err := p.WaitForPart(ctx, regexp.MustCompile(`/ipxe/images/lab/0-guest\.initrd\.gz`)); err != nil {
		return err
	}
	r.Server.Proc.Kill()
	if _, err := p.WaitFor(ctx, regexp.MustCompile(`nestboot: boot [0-9a-f]{16} of .* failed`)); err != nil {
		return err
	}
	if err := r.Server.Start(ctx); err != nil {
		return err
	}
	return finishes(ctx, p, m)
}

// listed are the machines that bootd knows, by UUID.
func listed(t *testing.T, r *rig.Rig) map[string]inventory.Record {
	t.Helper()
	out, err := r.Server.Nestctl(t.Context(), "machine", "list", "-o", "json")
	require.NoError(t, err)
	var answer struct{ Machines []inventory.Record }
	require.NoError(t, json.Unmarshal(out, &answer))
	byUUID := map[string]inventory.Record{}
	for _, m := range answer.Machines {
		byUUID[m.UUID] = m
	}
	return byUUID
}
