package storm

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"

	"github.com/cavaliergopher/cpio"
)

// pointer is where Ignition finds its configuration, and with what.
type pointer struct {
	url           string
	authorization string
	roots         *x509.CertPool
}

// ignitionConfig is as much of an Ignition config (spec 3.3) as a storm reads.
type ignitionConfig struct {
	Ignition struct {
		Config struct {
			Replace struct {
				Source      string `json:"source"`
				HTTPHeaders []struct {
					Name  string `json:"name"`
					Value string `json:"value"`
				} `json:"httpHeaders"`
			} `json:"replace"`
		} `json:"config"`
		Security struct {
			TLS struct {
				CertificateAuthorities []struct {
					Source string `json:"source"`
				} `json:"certificateAuthorities"`
			} `json:"tls"`
		} `json:"security"`
	} `json:"ignition"`
	Storage struct {
		Files []struct {
			Path     string `json:"path"`
			Contents struct {
				Source string `json:"source"`
			} `json:"contents"`
		} `json:"files"`
	} `json:"storage"`
	Systemd struct {
		Units []struct {
			Name     string `json:"name"`
			Contents string `json:"contents"`
		} `json:"units"`
	} `json:"systemd"`
}

// userConfig is where Flatcar looks for its config on the first boot.
const userConfig = "usr/share/oem/config.ign"

// readPointer unpacks the machine's own initrd, as the kernel does, and reads
// the config in it.
func readPointer(initrd []byte) (p pointer, err error) {
	archive := cpio.NewReader(bytes.NewReader(initrd))
	for {
		h, err := archive.Next()
		if err != nil {
			return p, fmt.Errorf("look for %s: %w", userConfig, err)
		}
		if h.Name == userConfig {
			break
		}
	}
	raw, err := io.ReadAll(archive)
	if err != nil {
		return p, err
	}
	var c ignitionConfig
	if err := json.Unmarshal(raw, &c); err != nil {
		return p, err
	}
	p.url, p.roots = c.Ignition.Config.Replace.Source, x509.NewCertPool()
	for _, h := range c.Ignition.Config.Replace.HTTPHeaders {
		if h.Name == "Authorization" {
			p.authorization = h.Value
		}
	}
	for _, ca := range c.Ignition.Security.TLS.CertificateAuthorities {
		if pem, err := dataURL(ca.Source); err != nil || !p.roots.AppendCertsFromPEM(pem) {
			return p, fmt.Errorf("authority %.60q is no certificate: %w", ca.Source, err)
		}
	}
	if p.url == "" || p.authorization == "" {
		return p, errors.New("pointer config without URL or Authorization")
	}
	return p, nil
}

// What the running system reports with: see the unit that the config brings.
const (
	doneHeader = "/etc/nestboot/done.header"
	doneRoot   = "/etc/nestboot/root.pem"
	doneUnit   = "nestboot-done.service"
)

var doneURL = regexp.MustCompile(`(?m)^ExecStart=/usr/bin/curl .* --request POST (https://\S+)$`)

// readConfig finds in a machine's whole config how it reports that it is up.
func readConfig(config []byte) (p pointer, err error) {
	var c ignitionConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return p, err
	}
	p.roots = x509.NewCertPool()
	for _, f := range c.Storage.Files {
		if f.Path != doneHeader && f.Path != doneRoot {
			continue
		}
		content, err := dataURL(f.Contents.Source)
		if err != nil {
			return p, fmt.Errorf("%s: %w", f.Path, err)
		}
		if f.Path == doneRoot {
			p.roots.AppendCertsFromPEM(content)
			continue
		}
		p.authorization = strings.TrimSpace(strings.TrimPrefix(string(content), "Authorization:"))
	}
	for _, u := range c.Systemd.Units {
		if m := doneURL.FindStringSubmatch(u.Contents); u.Name == doneUnit && m != nil {
			p.url = m[1]
		}
	}
	if p.url == "" || p.authorization == "" {
		return p, errors.New("the config has no phone-home")
	}
	return p, nil
}

// dataURL is the content of a data: URL without base64 (RFC 2397).
func dataURL(s string) ([]byte, error) {
	rest, ok := strings.CutPrefix(s, "data:,")
	if !ok {
		return nil, fmt.Errorf("%.40q is no plain data URL", s)
	}
	content, err := url.PathUnescape(rest)
	return []byte(content), err
}
