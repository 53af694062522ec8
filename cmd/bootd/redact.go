package main

import (
	"log/slog"
	"regexp"

	"github.com/nestboot/nestboot/boot"
)

// secretLike is what may be a token of ours: 256 bits in base64url have 43
// characters. Names of files, sets and images have no run that long.
var secretLike = regexp.MustCompile(`[A-Za-z0-9_-]{43,}`)

const redacted = "[redacted]"

// redact takes out what may be a token (T19). Anybody can put one where it does
// not belong, such as the path of a download address into DHCP's file name, and
// what machines ask for is recorded.
func redact(s string) string { return secretLike.ReplaceAllString(s, redacted) }

// redactEvent does so in the texts that come from outside.
func redactEvent(e boot.Event) boot.Event {
	e.Name, e.Error, e.Detail = redact(e.Name), redact(e.Error), redact(e.Detail)
	return e
}

// redactAttr does so in what is logged.
func redactAttr(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Resolve(); v.Kind() {
	case slog.KindString:
		return slog.String(a.Key, redact(v.String()))
	case slog.KindAny:
		if err, ok := v.Any().(error); ok {
			return slog.String(a.Key, redact(err.Error()))
		}
	}
	return a
}
