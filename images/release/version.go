package release

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	version "github.com/knqyf263/go-deb-version"
	"golang.org/x/mod/semver"
)

// Orders of versions.
const (
	OrderDebian = "debian" // runs of digits as numbers, '~' before everything
	OrderSemver = "semver" // semver.org, with or without a leading v
)

// Newer reports whether version a is later than b. What cannot be compared is
// not newer.
func (s System) Newer(a, b string) bool { return Newer(s.Order, a, b) }

// Newer compares in an order.
func Newer(order, a, b string) bool {
	if order == OrderSemver {
		va, vb := "v"+strings.TrimPrefix(a, "v"), "v"+strings.TrimPrefix(b, "v")
		return semver.IsValid(va) && semver.Compare(va, vb) > 0
	}
	va, err := version.NewVersion(leading(a))
	if err != nil {
		return false
	}
	vb, err := version.NewVersion(leading(b))
	return err == nil && va.GreaterThan(vb)
}

// leading takes off the v that some write before a number: Debian's versions
// begin with a digit.
func leading(v string) string { return strings.TrimPrefix(v, "v") }

// walk follows the description's keys through a JSON document.
func walk(s System, r Ref, data []byte) (string, error) {
	var doc any
	if err := json.Unmarshal(data, &doc); err != nil {
		return "", fmt.Errorf("it is not JSON: %w", err)
	}
	for _, key := range s.Current.JSON {
		m, ok := doc.(map[string]any)
		if !ok {
			return "", fmt.Errorf("there is nothing below %.40q", key)
		}
		doc = m[s.Expand(key, r)]
	}
	v, ok := doc.(string)
	if !ok {
		return "", errors.New("the keys do not lead to a text")
	}
	return v, nil
}
