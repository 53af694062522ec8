package storm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// plan is what a script comes to when all of its commands succeed.
type plan struct {
	kernel  string   // URL; empty: it does not boot
	initrds []string // URLs
	pause   time.Duration
}

// parseScript follows an iPXE script from its first line until it boots or
// ends. What stands behind "||" runs only where a command fails: none does.
func parseScript(script []byte) (plan, error) {
	lines := strings.Split(string(script), "\n")
	if lines[0] != "#!ipxe" {
		return plan{}, fmt.Errorf("begins with %.20q, not with #!ipxe", lines[0])
	}
	var p plan
	for _, line := range lines[1:] {
		line, _, _ = strings.Cut(line, "||")
		words := strings.Fields(line)
		if len(words) == 0 || words[0][0] == ':' || words[0][0] == '#' {
			continue
		}
		switch words[0] {
		case "kernel":
			p.kernel = firstURL(words)
		case "initrd":
			p.initrds = append(p.initrds, firstURL(words))
		case "sleep":
			n, err := strconv.Atoi(words[len(words)-1])
			if err != nil {
				return plan{}, fmt.Errorf("line %q: %w", line, err)
			}
			p.pause += time.Duration(n) * time.Second
		case "boot":
			return p, p.bootable()
		}
	}
	if p.pause == 0 {
		return plan{}, fmt.Errorf("neither boots nor waits: %.300q", script)
	}
	return p, nil
}

// bootable checks that there is all that the last steps need: the machine's own
// initrd comes last.
func (p plan) bootable() error {
	if p.kernel == "" || len(p.initrds) < 2 || p.initrds[len(p.initrds)-1] == "" {
		return errors.New("boots without a kernel, an image's initrd and the machine's own")
	}
	return nil
}

func firstURL(words []string) string {
	for _, w := range words {
		if strings.HasPrefix(w, "https://") {
			return w
		}
	}
	return ""
}
