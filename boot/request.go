package boot

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"github.com/google/uuid"
)

// Request is one machine's question "what shall I boot?".
type Request struct {
	UUID       string // canonical lower-case form
	MAC        string // colon form, lower case
	Serial     string // at most 64 printable ASCII characters, may be empty
	Arch       Arch
	Platform   Platform
	IP         netip.Addr // what the machine believes its address is; may be invalid
	Addr       netip.Addr // where the question came from
	Credential Credential
}

const maxSerial = 64

// ParseRequest reads the query that the script of an artifact sends to
// /ipxe/boot: uuid, mac, serial, arch, platform and ip. The values are typed
// by firmware vendors, so each is checked and brought to one form. Unknown
// keys are ignored, so that newer artifacts work with an older server.
func ParseRequest(q url.Values) (Request, error) {
	var r Request
	var err error
	if r.UUID, err = ParseUUID(q.Get("uuid")); err != nil {
		return Request{}, err
	}
	if r.MAC, err = ParseMAC(q.Get("mac")); err != nil {
		return Request{}, err
	}
	r.Serial = cleanSerial(q.Get("serial"))
	if r.Arch, err = ParseArch(q.Get("arch")); err != nil {
		return Request{}, err
	}
	if r.Platform, err = ParsePlatform(q.Get("platform")); err != nil {
		return Request{}, err
	}
	if s := q.Get("ip"); s != "" {
		if r.IP, err = netip.ParseAddr(s); err != nil || r.IP.Zone() != "" {
			return Request{}, fmt.Errorf("ip %s is not an address", Excerpt(s, 40))
		}
	}
	return r, nil
}

// ParseUUID reads an SMBIOS UUID in its 36-character form and returns it in
// lower case. The nil UUID is refused: boards that were never given one
// report it, and all of them would be one machine.
func ParseUUID(s string) (string, error) {
	u, err := uuid.Parse(s)
	if err != nil || len(s) != 36 {
		return "", fmt.Errorf("uuid %s is not a UUID like 4c4c4544-0042-3510-8052-b4c04f564433", Excerpt(s, 40))
	}
	if u == uuid.Nil {
		return "", fmt.Errorf("uuid is all zero: set one in the machine's firmware")
	}
	return u.String(), nil
}

// ParseMAC reads a 48-bit MAC address with colons, hyphens or dots and
// returns it with colons in lower case.
func ParseMAC(s string) (string, error) {
	m, err := net.ParseMAC(s)
	if err != nil || len(m) != 6 {
		return "", fmt.Errorf("mac %s is not a 48-bit MAC address", Excerpt(s, 40))
	}
	return m.String(), nil
}

// cleanSerial makes a serial number fit for logs and consoles. It is a fact to
// look at, not an identity, and vendors put anything into it: blanks and 0xFF
// for padding, or whole sentences.
func cleanSerial(s string) string {
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == 0xff) {
		s = s[:len(s)-1]
	}
	s = onePrintableLine(s)
	return strings.TrimSpace(s[:min(len(s), maxSerial)])
}
