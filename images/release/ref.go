package release

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// CurrentVersion is the word for whatever version a channel is at.
const CurrentVersion = "current"

// Ref names one release of a system for one architecture.
type Ref struct {
	System  string `json:"system"`
	Channel string `json:"channel"`
	Version string `json:"version"`
	Arch    string `json:"arch"` // x86_64 or arm64
}

// String is the reference as operators write it, without the architecture.
func (r Ref) String() string { return r.System + ":" + r.Channel + ":" + r.Version }

// ID is the reference with its architecture, unique on an installation.
func (r Ref) ID() string { return r.String() + ":" + r.Arch }

var versionForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+~_-]{0,63}$`)

// ParseRef reads system:channel:version. The architecture is no part of it,
// except where ID has put it.
func ParseRef(s, arch string) (Ref, error) {
	parts := strings.Split(s, ":")
	if len(parts) == 4 && (arch == "" || arch == parts[3]) {
		parts, arch = parts[:3], parts[3]
	}
	if len(parts) != 3 {
		return Ref{}, fmt.Errorf("%.100q is not system:channel:version, like flatcar:stable:4230.2.0", s)
	}
	r := Ref{System: parts[0], Channel: parts[1], Version: parts[2], Arch: arch}
	if r.Arch == "" {
		r.Arch = "x86_64"
	}
	return r, r.Validate()
}

// Validate reports a reference whose parts could not be part of a path.
func (r Ref) Validate() error {
	switch {
	case !systemName.MatchString(r.System):
		return fmt.Errorf("system %.40q: want 1 to 32 of a-z, 0-9 and '-'", r.System)
	case !channelName.MatchString(r.Channel):
		return fmt.Errorf("channel %.40q: want 1 to 32 of a-z, 0-9, '.', '_' and '-'", r.Channel)
	case !versionForm.MatchString(r.Version):
		return fmt.Errorf("version %.80q: want 1 to 64 of letters, digits, '.', '+', '~', '_' and '-', beginning with a letter or digit", r.Version)
	case r.Arch != "x86_64" && r.Arch != "arm64":
		return fmt.Errorf("architecture %.20q is neither x86_64 nor arm64", r.Arch)
	}
	return nil
}

// Check reports a reference to what the system does not have.
func (s System) Check(r Ref) error {
	if !slices.Contains(s.Channels, r.Channel) {
		return fmt.Errorf("%s has no channel %s: it has %s", s.Name, r.Channel, strings.Join(s.Channels, ", "))
	}
	if s.Archs[r.Arch] == "" {
		return fmt.Errorf("%s is not described for %s", s.Name, r.Arch)
	}
	if r.Version == CurrentVersion && s.Current.File == "" {
		return fmt.Errorf("the description of %s does not say how to find the current version: name one", s.Name)
	}
	return nil
}

// Expand fills a reference into a path or URL of the system.
func (s System) Expand(template string, r Ref) string {
	return strings.NewReplacer("{channel}", r.Channel, "{arch}", s.Archs[r.Arch], "{version}", r.Version).Replace(template)
}

// Files are the paths of a release: the kernel, then the initrds.
func (s System) Files(r Ref) (kernel string, initrds []string) {
	for _, i := range s.Initrds {
		initrds = append(initrds, s.Expand(i, r))
	}
	return s.Expand(s.Kernel, r), initrds
}

// Resolve finds the number of the current version in what Current.File holds.
func (s System) Resolve(r Ref, data []byte) (Ref, error) {
	version, err := s.find(r, data)
	if err != nil {
		return r, fmt.Errorf("find the current version of %s:%s in %s: %w", r.System, r.Channel, path.Base(s.Expand(s.Current.File, r)), err)
	}
	r.Version = version
	if version == CurrentVersion {
		return r, fmt.Errorf("the current version of %s:%s is said to be %q, which is none", r.System, r.Channel, version)
	}
	return r, r.Validate()
}

func (s System) find(r Ref, data []byte) (string, error) {
	if s.Current.JSON != nil {
		return walk(s, r, data)
	}
	quoted := r
	quoted.Channel = regexp.QuoteMeta(r.Channel)
	re, err := regexp.Compile(s.Expand(s.Current.Pattern, quoted))
	if err != nil {
		return "", fmt.Errorf("compile pattern: %w", err)
	}
	best := ""
	for _, m := range re.FindAllSubmatch(data, 1000) {
		if v := string(m[1]); versionForm.MatchString(v) && (best == "" || s.Newer(v, best)) {
			best = v
		}
	}
	if best == "" {
		return "", errors.New("nothing there matches: name a version, or correct the description")
	}
	return best, nil
}
