package boot

import (
	"fmt"
	"strings"
	"time"
)

// Action is what a Plan has the machine do.
type Action string

// The actions of a Plan.
const (
	ActBoot   Action = "boot"
	ActWait   Action = "wait"
	ActLocal  Action = "local disk"
	ActRefuse Action = "refuse"
	ActQueue  Action = "queue" // wait until fewer machines boot
)

// Codes of plans that do not boot: short and stable, for consoles, events and
// dashboards.
const (
	CodeDisabled  = "disabled"   // policy is refuse
	CodeHeld      = "held"       // policy is wait
	CodeNoImage   = "no-image"   // no image is configured, or the named one does not exist
	CodeWrongArch = "wrong-arch" // the image is for another processor
	CodeNotReady  = "not-ready"  // something that Ignition needs is missing just now
	CodeQueued    = "queued"     // as many machines boot as may at a time
)

// Plan is the answer to a Request.
type Plan struct {
	Action  Action
	Machine Machine       // with its name filled in
	Image   Image         // set when Action is ActBoot
	Code    string        // set when Action is ActWait, ActRefuse or ActQueue
	Reason  string        // one line for the console and the log
	Retry   time.Duration // pause before the machine asks again (ActWait, ActRefuse, ActQueue)
	Why     []string      // the steps that led here, for `why`
}

// Decide answers what the machine behind r is to do. The caller has already
// been identified; who it is does not change what it gets here. The same
// input always gives the same Plan, and Plan.Why tells how it came about.
func Decide(r Request, inv Inventory) Plan {
	p := Plan{}
	m, known := inv.Machines[r.UUID]
	if known {
		p.why("machine %s is configured as %q", r.UUID, m.Name)
	} else {
		m = Machine{UUID: r.UUID}
		p.why("machine %s is not configured: defaults apply", r.UUID)
	}
	if m.Name == "" {
		m.Name = DefaultName(r.MAC)
		p.why("no name is set: %q from its MAC address", m.Name)
	}
	p.Machine = m
	switch m.Policy {
	case PolicyRefuse:
		p.why("its policy is refuse")
		return p.refuse(CodeDisabled, "this machine may not boot: its policy is refuse")
	case PolicyWait:
		p.why("its policy is wait")
		return p.wait(CodeHeld, "held by the operator: its policy is wait")
	case PolicyLocal:
		p.why("its policy is local")
		p.Action, p.Reason = ActLocal, "boots from its local disk"
		return p
	}
	p.why("its policy is boot")
	return p.image(r, inv)
}

// image picks the image and finishes a plan whose policy is to boot.
func (p Plan) image(r Request, inv Inventory) Plan {
	name, from := p.Machine.Image, "named by the machine"
	if name == "" {
		name, from = inv.Default, "the default"
	}
	if name == "" {
		p.why("no image is configured")
		return p.wait(CodeNoImage, "no image is configured yet")
	}
	img, ok := inv.Images[name]
	if !ok {
		p.why("image %q (%s) does not exist", name, from)
		return p.wait(CodeNoImage, fmt.Sprintf("image %s does not exist", name))
	}
	p.why("image %q is %s", name, from)
	if img.Missing != "" {
		p.why("image cannot be served: %s", img.Missing)
		return p.wait(CodeNoImage, img.Missing)
	}
	if img.Arch != r.Arch {
		p.why("image is for %s, machine is %s", img.Arch, r.Arch)
		return p.refuse(CodeWrongArch, fmt.Sprintf("image %s is for %s, this machine is %s", name, img.Arch, r.Arch))
	}
	p.why("image and machine are both %s", r.Arch)
	p.Action, p.Image, p.Reason = ActBoot, img, "boots image "+name
	return p
}

// NotReady turns a plan to boot into one to wait, because something that the
// machine will need later cannot be had just now. Nothing half-done is served.
func (p Plan) NotReady(reason string) Plan {
	p.why("not ready: %s", reason)
	p.Image = Image{}
	return p.wait(CodeNotReady, reason)
}

// Queued turns a plan to boot into one to wait for its turn: so many machines
// are before this one, which asks again after retry, in whole seconds.
func (p Plan) Queued(ahead int, retry time.Duration) Plan {
	p.why("%d machines are before it", ahead)
	p.Image, p.Action, p.Code, p.Retry = Image{}, ActQueue, CodeQueued, retry
	switch ahead {
	case 0:
		p.Reason = "this machine is the next"
	case 1:
		p.Reason = "1 machine before this one"
	default:
		p.Reason = fmt.Sprintf("%d machines before this one", ahead)
	}
	return p
}

func (p *Plan) why(format string, a ...any) { p.Why = append(p.Why, fmt.Sprintf(format, a...)) }

func (p Plan) wait(code, reason string) Plan {
	p.Action, p.Code, p.Reason, p.Retry = ActWait, code, reason, retryWait
	return p
}

func (p Plan) refuse(code, reason string) Plan {
	p.Action, p.Code, p.Reason, p.Retry = ActRefuse, code, reason, retryRefuse
	return p
}

// DefaultName is the host name of a machine that was given none: "m-" and the
// twelve digits of its MAC address.
func DefaultName(mac string) string { return "m-" + strings.ReplaceAll(mac, ":", "") }
