package ipxebuild

import (
	"strconv"
	"time"

	"github.com/nestboot/nestboot/boot"
)

// maxNICs is how many network interfaces a VLAN or a static address is tried
// on. iPXE numbers them from 0 without gaps.
const maxNICs = 8

// linkWait is how long an interface may take to find its link.
const linkWait = 10 * time.Second

// once does what is done before the first try.
func (o Options) once(s *boot.Script) {
	if o.VLAN == 0 {
		return
	}
	for n := range maxNICs {
		trunk := "net" + strconv.Itoa(n)
		s.When(boot.Cmd("isset", boot.Var(trunk+"/mac", "")),
			boot.Cmd("vcreate", boot.Lit("--tag"), number(o.VLAN), boot.Lit(trunk)))
	}
}

// network brings the network up, or goes to the label no-network.
func (o Options) network(s *boot.Script) {
	switch {
	case o.Static != nil:
		o.staticNetwork(s)
	case o.VLAN != 0:
		o.tagged(s)
	default:
		s.DoOr(boot.Cmd("dhcp"), boot.Goto("no-network"))
	}
	if o.NTP != "" {
		s.DoOr(boot.Cmd("ntp", boot.Lit(o.NTP)), boot.Echo("nestboot: no time from "+o.NTP+", going on with the machine's clock, errno", boot.Var("errno", "")))
	}
}

// tagged asks for an address on the VLAN of each interface until one answers.
func (o Options) tagged(s *boot.Script) {
	for n := range maxNICs {
		s.DoOr(boot.Cmd("isset", boot.Var(o.nic(n)+"/mac", "")), boot.Goto("no-network"))
		s.When(boot.Cmd("dhcp", boot.Lit(o.nic(n))), boot.Goto("online"))
	}
	s.Do(boot.Goto("no-network"))
	s.Label("online")
}

// staticNetwork gives the address to the first interface that has a link.
func (o Options) staticNetwork(s *boot.Script) {
	wait := number(int(linkWait.Milliseconds()))
	for n := range maxNICs {
		s.DoOr(boot.Cmd("isset", boot.Var(o.nic(n)+"/mac", "")), boot.Goto("no-network"))
		s.Do(boot.Set(settingNIC, boot.Lit(o.nic(n))))
		s.When(boot.Cmd("iflinkwait", boot.Lit("--timeout"), wait, boot.Lit(o.nic(n))), boot.Goto("link"))
	}
	s.Do(boot.Goto("no-network"))
	s.Label("link")
	set := func(setting, value string) {
		s.Do(boot.Cmd("set", boot.Join(boot.Var(settingNIC, ""), boot.Lit("/"+setting)), boot.Lit(value)))
	}
	set("ip", o.Static.Address.Addr().String())
	set("netmask", netmask(o.Static.Address.Bits()))
	if o.Static.Gateway.IsValid() {
		set("gateway", o.Static.Gateway.String())
	}
	if o.Static.DNS.IsValid() {
		s.Do(boot.Set("dns", boot.Lit(o.Static.DNS.String())))
	}
	s.DoOr(boot.Cmd("ifopen", boot.Var(settingNIC, "")), boot.Goto("no-network"))
}

// noNetwork says what went wrong at the label no-network. Where several
// interfaces were tried, iPXE has said of each why.
func (o Options) noNetwork() boot.Command {
	vlan := ""
	if o.VLAN != 0 {
		vlan = " on VLAN " + strconv.Itoa(o.VLAN)
	}
	switch {
	case o.Static != nil:
		return boot.Echo("nestboot: no network interface has a link" + vlan)
	case o.VLAN != 0:
		return boot.Echo("nestboot: no network interface got an address by DHCP" + vlan)
	}
	return boot.Echo("nestboot: no network interface got an address by DHCP, errno", boot.Var("errno", ""))
}

// resetTries begins to count failures.
func (o Options) resetTries(s *boot.Script) {
	if o.LocalAfter != 0 {
		s.Do(boot.Set(settingTries+":int32", number(0)))
	}
}

// countTry counts a failure, and leaves for the local disk after enough.
func (o Options) countTry(s *boot.Script) {
	if o.LocalAfter == 0 {
		return
	}
	s.Do(boot.Cmd("inc", boot.Lit(settingTries)))
	s.DoOr(boot.Cmd("iseq", boot.Var(settingTries, "int32"), number(o.LocalAfter)), boot.Goto("again"))
	s.Do(boot.Echo("nestboot: failed tries: " + strconv.Itoa(o.LocalAfter) + ", booting from the local disk"))
	s.Do(boot.Goto("local"))
	s.Label("again")
}

func number(n int) boot.Word { return boot.Lit(strconv.Itoa(n)) }
