package lab

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
)

// DHCP is what the network's DHCP server tells a machine's firmware, as an operator would set it. Nothing is said to
// firmware whose field is empty. The server does not look at the user class, by which an iPXE tells that it is one,
// unless IPXE is set.
type DHCP struct {
	NextServer string // address of the TFTP server; ServerIP when empty
	File       string // boot file for UEFI PXE (client architectures 7 and 9)
	URL        string // boot file for UEFI HTTP Boot (client architecture 16)
	BIOS       string // boot file for BIOS (client architecture 0)
	ARM64      string // boot file for UEFI PXE on arm64 (client architecture 11)
	IPXE       string // boot file for user class iPXE, instead of all of the others
	PlainROM   bool   // the iPXE in a machine's ROM counts as a PXE of another maker, which has no user class
}

const dnsmasqHead = `# The customer's DHCP and DNS server.
interface=%[1]s
bind-interfaces
except-interface=lo
no-resolv
no-hosts
no-ping
log-dhcp
log-queries
dhcp-authoritative
dhcp-leasefile=%[2]s
dhcp-range=10.77.0.50,10.77.0.199,255.255.255.0,10m
dhcp-option=option:router,%[3]s
dhcp-option=option:dns-server,%[3]s
# A router advertisement, without addresses: QEMU's own BIOS ROM waits 16 s for one.
enable-ra
dhcp-range=fd00:77::,ra-only,64
dhcp-match=set:bios,option:client-arch,0
dhcp-match=set:pxe,option:client-arch,7
dhcp-match=set:pxe,option:client-arch,9
dhcp-match=set:arm64,option:client-arch,11
dhcp-match=set:http,option:client-arch,16
dhcp-userclass=set:ipxe,iPXE
# The options that today's iPXE asks for begin so; that of 2019 in the ROMs of QEMU does not ask for NTP servers (2a).
dhcp-match=set:ntp,55,01:03:06:07:0c:0f:11:1a:2a
tag-if=set:today,tag:ipxe,tag:ntp
# UEFI HTTP Boot takes no offer that does not say its own vendor class.
dhcp-option-force=tag:http,60,HTTPClient
`

func (o Options) leases() string { return filepath.Join(o.Dir, "dnsmasq.leases") }

// dnsmasq renders the configuration file.
func (o Options) dnsmasq() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, dnsmasqHead, bridge, o.leases(), ServerIP)
	if o.Domain != "" {
		// local: an answer of "no such record" for IPv6, not a refusal, which would stand for a broken resolver.
		fmt.Fprintf(&b, "address=/%[1]s/%[2]s\nlocal=/%[1]s/\n", o.Domain, cmp.Or(o.DomainIP, ServerIP))
	}
	for _, line := range o.Raw {
		fmt.Fprintln(&b, line)
	}
	others := ""
	for i, mac := range slices.Sorted(maps.Keys(o.ByMAC)) {
		tag := fmt.Sprintf("m%d", i)
		fmt.Fprintf(&b, "dhcp-mac=set:%s,%s\n", tag, mac)
		o.ByMAC[mac].render(&b, ",tag:"+tag)
		others += ",tag:!" + tag
	}
	o.DHCP.render(&b, others)
	return b.Bytes()
}

// render writes the lines that hold for firmware with all of the tags, each of which has a comma before it.
func (d DHCP) render(b *bytes.Buffer, tags string) {
	file := func(tag, tags, name string) {
		if name != "" {
			fmt.Fprintf(b, "dhcp-boot=tag:%s%s,%s,,%s\n", tag, tags, name, cmp.Or(d.NextServer, ServerIP))
		}
	}
	if d.IPXE != "" {
		ipxe := "ipxe"
		if d.PlainROM {
			ipxe = "today"
		}
		file(ipxe, tags, d.IPXE)
		tags += ",tag:!" + ipxe
	}
	file("bios", tags, d.BIOS)
	file("pxe", tags, d.File)
	file("arm64", tags, d.ARM64)
	if d.URL != "" {
		fmt.Fprintf(b, "dhcp-boot=tag:http%s,%s\n", tags, d.URL)
	}
}
