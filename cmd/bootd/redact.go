package main

import (
	"log/slog"
	"regexp"

	"github.com/nestboot/nestboot/boot"
)

// secretLike is what may hold a token of ours: 256 bits in base64url have 43
// characters. Names of sets, images, URLs and registered certificates are
// shorter; that of a file or machine which has a run so long is taken out too.
var secretLike = regexp.MustCompile(`[A-Za-z0-9_-]{43,}`)

// fingerprint is no token: one in 2^86 of them looks like it.
var fingerprint = regexp.MustCompile(`^[0-9a-f]+$`)

const redacted = "[redacted]"

// redact takes out what may be a token (T19). Anybody can put one where it does
// not belong, such as the path of a download address into DHCP's file name, and
// what machines ask for is recorded.
func redact(s string) string {
	return secretLike.ReplaceAllStringFunc(s, func(run string) string {
		if fingerprint.MatchString(run) {
			return run
		}
		return redacted
	})
}

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
