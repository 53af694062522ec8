package ipxebuild

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// maxScript is more than any script of ours has: 5 KB with RSA-2048.
const maxScript = 64 << 10

func isScript(data []byte) bool { return bytes.HasPrefix(data, []byte("#!ipxe")) }

// inspectScript reads what a set's script says, or any other iPXE script, in which it
// may find nothing.
func inspectScript(data []byte) (Report, error) {
	if !isScript(data) || len(data) > maxScript {
		return Report{}, errors.New("not an iPXE script of a set")
	}
	r := Report{Format: "script"}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		command, rest, _ := strings.Cut(line, " ")
		if name, ok := strings.CutPrefix(line, "# nestboot, artifact set "); ok {
			r.Set, _, _ = strings.Cut(name, ".")
		}
		switch command {
		case "set":
			if err := r.set(strings.Fields(rest)); err != nil {
				return Report{}, err
			}
		case "chain":
			if u := questionURL(rest); u != "" {
				r.URL = u
			}
		}
	}
	if CheckSetName(r.Set) != nil {
		r.Set = ""
	} else {
		r.Format = string(FormatChain)
	}
	return r, nil
}

// set reads one set command.
func (r *Report) set(words []string) error {
	if len(words) < 2 {
		return nil
	}
	setting, _, _ := strings.Cut(words[0], ":")
	switch setting {
	case "privkey":
		r.HoldsKey = true
	case "cert":
		der, err := hex.DecodeString(words[1])
		if err != nil {
			return fmt.Errorf("script: client certificate: %w", err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("script: client certificate: %w", err)
		}
		r.Subject, r.Expires = cert.Subject.String(), cert.NotAfter.UTC()
	}
	return nil
}

// questionURL is the https://host of the chain command that asks /ipxe/boot.
func questionURL(words string) string {
	for w := range strings.FieldsSeq(words) {
		if base, _, ok := strings.Cut(w, "/ipxe/boot?"); ok {
			if _, err := hostOf(base); err == nil {
				return base
			}
		}
	}
	return ""
}
