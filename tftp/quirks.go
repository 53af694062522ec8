package tftp

import (
	"encoding/hex"
	"net"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// cleanName removes what firmware adds to the name it was given by DHCP, and
// refuses names that no one has meant.
func cleanName(name string) (string, error) {
	// Some old PXE ROMs append 0xFF, by the look of it DHCP's end option.
	for strings.HasSuffix(name, "\xff") {
		name = name[:len(name)-1]
	}
	// DHCP servers and boot loaders of the Windows family separate by
	// backslashes, and clients differ in whether a name begins with a separator.
	name = strings.TrimLeft(strings.ReplaceAll(name, `\`, "/"), "/")
	switch {
	case name == "":
		return "", &Refusal{Code: codeIllegal, Message: "request without a file name"}
	case !utf8.ValidString(name):
		return "", &Refusal{Code: codeIllegal, Message: "file name is not UTF-8"}
	case strings.ContainsFunc(name, unicode.IsControl):
		return "", &Refusal{Code: codeIllegal, Message: "file name holds a control character"}
	}
	return name, nil
}

// hardwareAddress finds the MAC in the name of a file that a loader looks for on
// the chance, in the ways they are known to write it; nil if there is none. At
// this stage it is the only thing by which a machine can be told from others
// behind the same address. It is a claim, like the whole request.
//
//	pxelinux.cfg/01-52-54-00-12-34-56   PXELINUX 3 to 6: ARP type, dashes
//	grub.cfg-01-52-54-00-12-34-56       GRUB 2.02 and later
//	52:54:00:12:34:56.ipxe              iPXE, ${net0/mac}
//	52-54-00-12-34-56.ipxe              iPXE, ${net0/mac:hexhyp}
//	52-54-00-12-34-56/start4.elf        Raspberry Pi 4 (TFTP_PREFIX=2)
//	525400123456.ipxe                   iPXE, ${net0/mac:hexraw}
//	MAC-525400123456.ipxe               netboot.xyz
//
// Who writes a DHCP server's file name by hand may well use upper case.
func hardwareAddress(name string) net.HardwareAddr {
	for _, part := range []string{path.Base(name), path.Base(path.Dir(name))} {
		part = strings.ToLower(part)
		part = strings.TrimPrefix(part, "grub.cfg-")
		part = strings.TrimPrefix(part, "mac-")
		part, _, _ = strings.Cut(part, ".")
		if len(part) == len("01-")+macLength && strings.HasPrefix(part, "01-") {
			part = part[len("01-"):]
		}
		if mac := parseMAC(part); mac != nil {
			return mac
		}
	}
	return nil
}

// macLength is that of six bytes with separators.
const macLength = len("52-54-00-12-34-56")

// parseMAC reads six bytes with colons, dashes or nothing between them. Names
// that only look like it, such as twelve zeros, are none.
func parseMAC(s string) net.HardwareAddr {
	if len(s) == macLength {
		separator := s[2:3]
		if separator != ":" && separator != "-" || strings.Count(s, separator) != 5 {
			return nil
		}
		s = strings.ReplaceAll(s, separator, "")
	}
	mac, err := hex.DecodeString(s)
	if err != nil || len(mac) != 6 || [6]byte(mac) == [6]byte{} || mac[0]&1 != 0 { // multicast
		return nil
	}
	return mac
}
