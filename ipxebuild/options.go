package ipxebuild

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Options change what the script of a set does. The zero value is a machine
// that boots by DHCP on an untagged network and never gives up.
type Options struct {
	// VLAN is the tag of the network that machines boot on, 1 to 4094; 0 is
	// untagged.
	VLAN int `json:"vlan,omitempty" yaml:"vlan"`
	// Static is the address of the one machine that boots with this set; nil
	// is DHCP.
	Static *Static `json:"static,omitempty" yaml:"static"`
	// NTP is a time server, an address or a host name, that is asked before
	// TLS; empty is the machine's own clock. Needs an iPXE with the command
	// ntp: Debian's 2.0.0 for UEFI has it, the BIOS binaries do not.
	NTP string `json:"ntp,omitempty" yaml:"ntp"`
	// Console is where the machine talks.
	Console Console `json:"console,omitzero" yaml:"console"`
	// LocalAfter is the number of failed tries in a row, 1 to 1000, after
	// which the machine boots from its local disk; 0 is never.
	LocalAfter int `json:"local_after,omitempty" yaml:"local_after"`
}

// Static is an address that is set by hand.
type Static struct {
	Address netip.Prefix `json:"address" yaml:"address"`          // IPv4 with its prefix length: 192.0.2.7/24
	Gateway netip.Addr   `json:"gateway,omitzero" yaml:"gateway"` // of the default route; may be absent
	DNS     netip.Addr   `json:"dns,omitzero" yaml:"dns"`         // may be absent when URL and NTP are addresses
}

// Console is where the machine talks. The zero value leaves it as it is.
type Console struct {
	// Serial is the serial port, "ttyS0" to "ttyS3" and maybe a speed,
	// "ttyS0,115200", that isolinux and pxelinux talk on beside the screen.
	// iPXE itself talks where the firmware does: stock binaries have no serial
	// console of their own, so it is the firmware's setting that redirects it.
	Serial string `json:"serial,omitempty" yaml:"serial"`
}

const (
	maxVLAN       = 4094
	maxLocalAfter = 1000
)

var (
	hostName   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
	serialPort = regexp.MustCompile(`^ttyS([0-3])(?:,(9600|19200|38400|57600|115200))?$`)
)

// Validate reports all that is wrong with the options themselves; whether the
// base has the commands that they need, Stock.Set says.
func (o Options) Validate() error {
	var errs []error
	if o.VLAN < 0 || o.VLAN > maxVLAN {
		errs = append(errs, fmt.Errorf("vlan %d: want a tag of 1 to %d", o.VLAN, maxVLAN))
	}
	if o.LocalAfter < 0 || o.LocalAfter > maxLocalAfter {
		errs = append(errs, fmt.Errorf("local_after %d: want 1 to %d tries", o.LocalAfter, maxLocalAfter))
	}
	if o.Static != nil {
		errs = append(errs, o.Static.validate())
	}
	if o.NTP != "" && !isIPv4(o.NTP) && (len(o.NTP) > 253 || !hostName.MatchString(o.NTP)) {
		errs = append(errs, fmt.Errorf("ntp %q: want a host name or an IPv4 address", o.NTP))
	}
	if o.NTP != "" && o.Static != nil && !o.Static.DNS.IsValid() && !isIPv4(o.NTP) {
		errs = append(errs, fmt.Errorf("ntp %q is a name, and static.dns is missing: name a DNS server or an address", o.NTP))
	}
	if s := o.Console.Serial; s != "" && !serialPort.MatchString(s) {
		errs = append(errs, fmt.Errorf("serial console %q: want ttyS0 to ttyS3, maybe with a speed: ttyS0,115200", s))
	}
	return errors.Join(errs...)
}

func (s Static) validate() error {
	var errs []error
	if !s.Address.IsValid() || !s.Address.Addr().Is4() || s.Address.Bits() < 1 || s.Address.Bits() > 31 {
		errs = append(errs, fmt.Errorf("static.address %q: want an IPv4 address with its prefix length, such as 192.0.2.7/24", s.Address))
		return errors.Join(errs...)
	}
	if s.Gateway.IsValid() && (!s.Address.Contains(s.Gateway) || s.Gateway == s.Address.Addr()) {
		errs = append(errs, fmt.Errorf("static.gateway %s is not another address in %s", s.Gateway, s.Address.Masked()))
	}
	if s.DNS.IsValid() && !s.DNS.Is4() {
		errs = append(errs, fmt.Errorf("static.dns %s: want an IPv4 address", s.DNS))
	}
	return errors.Join(errs...)
}

func isIPv4(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is4()
}

// netmask is 255.255.255.0 for a prefix of 24 bits.
func netmask(bits int) string {
	mask := ^uint32(0) << (32 - bits)
	return netip.AddrFrom4([4]byte{byte(mask >> 24), byte(mask >> 16), byte(mask >> 8), byte(mask)}).String()
}

// serialLine is syslinux's directive for the serial port; empty: none.
func (c Console) serialLine() string {
	m := serialPort.FindStringSubmatch(c.Serial)
	if m == nil {
		return ""
	}
	speed := m[2]
	if speed == "" {
		speed = "115200"
	}
	return strings.Join([]string{"SERIAL", m[1], speed}, " ") + "\n"
}

// optionalCommands are the commands that not every iPXE has, and that only
// options need.
var optionalCommands = []string{"vcreate", "iflinkwait", "ntp"}

// commands are the optional commands that a base needs.
func (o Options) commands() []string {
	var out []string
	if o.VLAN != 0 {
		out = append(out, "vcreate")
	}
	if o.Static != nil {
		out = append(out, "iflinkwait")
	}
	if o.NTP != "" {
		out = append(out, "ntp")
	}
	return out
}

// nic is the name of the nth network interface that machines boot on.
func (o Options) nic(n int) string {
	name := "net" + strconv.Itoa(n)
	if o.VLAN != 0 {
		name += "-" + strconv.Itoa(o.VLAN)
	}
	return name
}
