package ignition

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/coreos/ignition/v2/config/v3_4/types"
)

const hostnamePath = "/etc/hostname"

// Values are one machine's own facts. The config that carries them is a secret, for it holds a token.
type Values struct {
	// Hostname is written to /etc/hostname in place of what the base puts there; empty leaves the base's. Labels of
	// letters, digits and inner hyphens, 1 to 63 each, joined by dots (RFC 1123 section 2.1), at most 64 bytes
	// together: Linux holds no more (gethostname(2)).
	Hostname string

	// Done is where and with what the machine reports that it is up.
	Done Done

	// RootPEM holds the certificates of the authorities that Done.URL's certificate may come from, and no other PEM
	// block. Text around them is dropped.
	RootPEM []byte
}

// Done is a machine's phone-home: one POST with a bearer token, by the unit nestboot-done.service.
type Done struct {
	// URL is https, without user, query and fragment, at most 2048 bytes.
	URL string

	// Token is a bearer token as in RFC 6750 section 2.1, at most 512 bytes. It is written to a file of mode 0600 and
	// stands in no unit and on no command line.
	Token string
}

// config is what we add to any base. An error names the field; it never holds the token.
func (v Values) config() (types.Config, error) {
	root, err := authorities(v.RootPEM)
	if err := errors.Join(v.check(), err); err != nil {
		return types.Config{}, err
	}
	var c types.Config
	if v.Hostname != "" {
		c.Storage.Files = append(c.Storage.Files, file(hostnamePath, 0o644, v.Hostname+"\n"))
	}
	c.Storage.Files = append(c.Storage.Files,
		file(rootPath, 0o644, root),
		file(headerPath, 0o600, "Authorization: "+bearer(v.Done.Token)+"\n"))
	c.Systemd.Units = []types.Unit{doneUnit(v.Done.URL)}
	return c, nil
}

// check checks all but the certificates.
func (v Values) check() error {
	return errors.Join(checkHostname(v.Hostname), checkURL(v.Done.URL), checkBearer(v.Done.Token))
}

// file replaces what the image or a former installation left at path: Ignition would otherwise stop there.
func file(path string, mode int, content string) types.File {
	return types.File{
		Node: types.Node{Path: path, Overwrite: new(true)},
		FileEmbedded1: types.FileEmbedded1{
			Mode:     new(mode),
			Contents: types.Resource{Source: new(dataURL(content))},
		},
	}
}

// dataURL escapes what RFC 2397 does not allow and stays readable for the rest.
func dataURL(content string) string { return "data:," + url.PathEscape(content) }

func bearer(token string) string { return "Bearer " + token }

// The bytes that each kind of value may consist of.
const (
	letters    = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	labelBytes = letters + "0123456789-"
	tokenBytes = labelBytes + "._~+/"
	// No %, $, quote or blank, which systemd reads in a unit, and no ?, # or @: no query, fragment or user.
	urlBytes = labelBytes + "._~:/[]"
)

func only(s, alphabet string) bool { return strings.Trim(s, alphabet) == "" }

func checkHostname(name string) error {
	if name == "" {
		return nil
	}
	good := len(name) <= 64
	for label := range strings.SplitSeq(name, ".") {
		good = good && len(label) >= 1 && len(label) <= 63 && only(label, labelBytes) && strings.Trim(label, "-") == label
	}
	if !good {
		return fmt.Errorf("hostname %.80q is not a host name of at most 64 bytes (RFC 1123)", name)
	}
	return nil
}

func checkBearer(token string) error {
	body := strings.TrimRight(token, "=")
	if body == "" || len(token) > 512 || !only(body, tokenBytes) {
		return fmt.Errorf("secret of %d bytes is not a bearer token of 1 to 512 bytes (RFC 6750)", len(token))
	}
	return nil
}

func checkURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || len(raw) > 2048 || !only(raw, urlBytes):
		return fmt.Errorf("url %.80q is not a plain URL of at most 2048 bytes", raw)
	case u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("url %.80q must begin with https:// and a host: a secret travels with it", raw)
	}
	return nil
}
