package integration

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/rig"
)

// TestT15_RogueNetworkGetsNoTrust boots a machine from its set's own medium in a
// network that belongs to an attacker: DHCP, DNS, TFTP and a boot server under
// our names. It must stop at TLS, run nothing of the attacker's, and show the
// attacker no certificate request that it answers.
func TestT15_RogueNetworkGetsNoTrust(t *testing.T) {
	if os.Getenv(whole) == "" {
		t.Skip("make e2e-trust; TestMachinesBoot has a machine that meets a foreign root")
	}
	r := newRig(t, rig.Options{Rogue: true})
	m := lab.Machine{
		Name: "victim", MAC: "52:54:00:00:04:01", UUID: uuidOf(401), Firmware: lab.BIOS, Boot: lab.CD,
		Media: downloaded(t, r, rig.Set, rig.Set+".iso"),
	}
	twice(t, m, func(ctx context.Context, m lab.Machine) error { return trustsNobody(ctx, r, m) })
}

func trustsNobody(ctx context.Context, r *rig.Rig, m lab.Machine) error {
	err := says(ctx, r, m, untrusted, `nestboot: ipxe\.lab\.test did not let this machine boot, errno 0x`,
		`nestboot: trying again in 5 seconds`, `nestboot: trying again in 10 seconds`)
	if err != nil {
		return err
	}
	events, err := r.Rogue.Events(ctx)
	if err != nil {
		return err
	}
	met := false
	for _, e := range events {
		switch {
		case strings.Contains(e.Detail, "certificate of") || e.Machine != "":
			return errors.New("the machine has shown its certificate to the attacker's server")
		case e.Code == "tls-failed":
			met = true
		}
	}
	if !met {
		return errors.New("control: the machine never spoke to the attacker's server")
	}
	return nil
}

// untrusted is what iPXE says of a server whose chain does not hold: a root that
// it does not trust, or a time at which it is not valid. The last digits are 02
// in BIOS and 82 in UEFI.
const untrusted = `https://ipxe\.lab\.test/ipxe/boot.*Invalid argument \(https?://ipxe\.org/1c2ee0[08]2\)`
