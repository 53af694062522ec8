package release

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

//go:embed systems/*.yaml
var builtin embed.FS

// Systems are the descriptions that an installation knows, by name.
type Systems map[string]System

// Load reads the built-in descriptions and those of the operator, which replace
// built-in ones of the same name. All faults are returned at once.
func Load(paths []string) (Systems, error) {
	all := Systems{}
	entries, err := builtin.ReadDir("systems")
	if err != nil {
		return nil, fmt.Errorf("read descriptions: %w", err)
	}
	for _, e := range entries {
		data, err := builtin.ReadFile("systems/" + e.Name())
		if err != nil {
			return nil, fmt.Errorf("read description: %w", err)
		}
		s, err := Parse(data)
		if err != nil {
			return nil, fmt.Errorf("description %s: %w", e.Name(), err)
		}
		all[s.Name] = s
	}
	var errs []error
	from := map[string]string{}
	for _, path := range paths {
		s, err := readFile(path)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("description %s: %w", path, err))
		case from[s.Name] != "":
			errs = append(errs, fmt.Errorf("description %s: %s describes %s too", path, from[s.Name], s.Name))
		default:
			all[s.Name], from[s.Name] = s, path
		}
	}
	return all, errors.Join(errs...)
}

func readFile(path string) (System, error) {
	f, err := os.Open(path)
	if err != nil {
		return System{}, err
	}
	defer func() { _ = f.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(f, MaxDescription+1))
	if err != nil {
		return System{}, err
	}
	return Parse(data)
}

// Find returns the system that a reference names, and whether it has what is
// asked for.
func (all Systems) Find(r Ref) (System, error) {
	s, ok := all[r.System]
	if !ok {
		return s, fmt.Errorf("there is no description of %.40s: there are %s; name a file of your own in downloads.systems", r.System, strings.Join(all.Names(), ", "))
	}
	return s, s.Check(r)
}

// Names lists what is described.
func (all Systems) Names() []string {
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
