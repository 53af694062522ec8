// Package rig puts the real bootd into the lab, configured as an operator
// would for one rack, and watches machines boot from it. The demo and the
// end-to-end tests share it.
package rig

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/integration/lab"
)

// Domain is under which the lab's DNS knows the boot server.
const Domain = "lab.test"

// Set is the artifact set that machines boot with unless they are told
// otherwise.
const Set = "rack1"

// Serve is over which protocols, beside HTTPS.
const Serve = "tftp,http"

// Message is the content of a file that Ignition writes and the guest shows.
const Message = "Ignition was here, sent by nestboot"

// MessagePath is where that file lies.
const MessagePath = "/etc/nestboot-lab/message"

// Options say what to run.
type Options struct {
	Dir     string // existing folder for all that is written
	Bootd   string // path of the program
	Nestctl string // path of the program
	Foreign string // MAC of a machine that is given another server's artifact; none when empty
	Capture bool   // packets of each machine

	ByMAC map[string]lab.DHCP // what a machine with this address is told, if not to boot with Set

	// Rogue is a network that belongs to an attacker: another server, with a root of its own, answers under all names,
	// and DHCP offers what might make an iPXE trust it. The genuine server is there and nobody is sent to it.
	Rogue bool
}

// Rig is a lab with a bootd that answers.
type Rig struct {
	Lab    *lab.Lab
	Server *Server
	Rogue  *Server // the one that is not ours; nil when there is none
	Guest  Guest
	o      Options

	materials lab.Materials
	temporary []string // folders outside of o.Dir
}

// Guest is the operating system that machines boot.
type Guest struct{ Kernel, Initrd string }

// foreignIP is where the other server, whose root nobody here shares, answers.
const foreignIP = "10.77.0.2"

// rogueDHCP are the options by which an iPXE might be led astray, if it listened: a script of the attacker's, which runs
// where no other does, and an address where it would look for the certificates that lead from a foreign root to one that
// it trusts (iPXE's options 175.93, crosscert, and 175.178, the encapsulated name of a boot file).
var rogueDHCP = []string{
	`dhcp-option-force=encap:175,93,"http://` + foreignIP + `/` + Set + `.ipxe"`,
	`dhcp-option-force=tag:ipxe,67,"tftp://` + foreignIP + `/` + Set + `.ipxe"`,
}

// New opens the lab, builds the guest, and starts bootd. Close ends all.
func New(ctx context.Context, o Options) (*Rig, error) {
	materials, err := lab.FindMaterials()
	if err != nil {
		return nil, err
	}
	r := &Rig{o: o, materials: materials}
	if r.Guest.Kernel, r.Guest.Initrd, err = lab.BuildGuest(materials, o.Dir); err != nil {
		return nil, err
	}
	options := lab.Options{
		Dir: o.Dir, Materials: materials, Domain: Domain, Capture: o.Capture,
		DHCP: SingleFiles(Set), ByMAC: maps.Clone(o.ByMAC),
	}
	if o.Foreign != "" || o.Rogue {
		options.Addresses = []string{foreignIP + "/24"}
	}
	if o.Rogue {
		options.DomainIP, options.Raw = foreignIP, rogueDHCP
		options.DHCP = lab.DHCP{NextServer: foreignIP, IPXE: Set + ".ipxe"}
	}
	if o.Foreign != "" {
		if options.ByMAC == nil {
			options.ByMAC = map[string]lab.DHCP{}
		}
		options.ByMAC[o.Foreign] = lab.DHCP{NextServer: foreignIP, File: Set + ".efi"}
	}
	if r.Lab, err = lab.New(ctx, options); err != nil {
		return nil, err
	}
	r.Server, err = r.serve(ctx, "bootd", lab.ServerIP, materials)
	if err == nil && (o.Foreign != "" || o.Rogue) {
		r.Rogue, err = r.serve(ctx, "foreign", foreignIP, materials)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Materials are what the rig was built of.
func (r *Rig) Materials() lab.Materials { return r.materials }

// SingleFiles is what DHCP says of a set to firmware that loads one file and
// no other: next-server and a name, or an address.
func SingleFiles(set string) lab.DHCP {
	return lab.DHCP{File: set + ".efi", BIOS: set + ".undionly", ARM64: set + ".arm64.efi", URL: "http://boot." + Domain + "/" + set + ".efi"}
}

// Close ends every process of the rig.
func (r *Rig) Close() error {
	err := r.Lab.Close()
	for _, dir := range r.temporary {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// BootsOf returns the events of every boot in which the machine was named, by
// boot id, each in order.
func BootsOf(events []boot.Event, machine string) map[string][]boot.Event {
	boots := map[string][]boot.Event{}
	for _, e := range events {
		if e.Machine == machine && e.Boot != "" {
			boots[e.Boot] = nil
		}
	}
	for _, e := range events {
		if _, ok := boots[e.Boot]; ok {
			boots[e.Boot] = append(boots[e.Boot], e)
		}
	}
	return boots
}

// Missing lists the stages of want that the events lack.
func Missing(events []boot.Event, want []boot.Stage) []boot.Stage {
	return slices.DeleteFunc(slices.Clone(want), func(s boot.Stage) bool {
		return slices.ContainsFunc(events, func(e boot.Event) bool { return e.Stage == s && !e.Failed() })
	})
}

// Stages that a boot from the given source goes through.
func Stages(source lab.Source) []boot.Stage {
	rest := []boot.Stage{
		boot.StageTLS, boot.StageScript, boot.StageKernel, boot.StageInitrd, boot.StageConfig, boot.StageIgnition, boot.StageDone,
	}
	switch source {
	case lab.PXE:
		return append([]boot.Stage{boot.StageTFTPRequest, boot.StageTFTPDone}, rest...)
	case lab.HTTP:
		return append([]boot.Stage{boot.StageArtifact}, rest...)
	case lab.CD, lab.USB, lab.Disk:
	}
	return rest
}
