package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// errUnread marks that not every value could be read, so that checking them
// further would only add false faults.
var errUnread = errors.New("some values could not be read")

// decodeStrict reads one YAML document into out, a pointer to a struct with
// yaml tags. Every unknown key, every key that is there twice and every value
// of the wrong form is an error with its line; all are returned at once.
func decodeStrict(data []byte, out any) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		return errors.Join(explainSyntax(data, err), errUnread)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.Join(errors.New("the file holds more than one YAML document"), errUnread)
	}
	c := &checker{}
	c.value(doc.Content[0], reflect.TypeOf(out).Elem(), "the file")
	if c.unread {
		return errors.Join(append(c.faults, errUnread)...)
	}
	if err := doc.Decode(out); err != nil { // the checker should have seen it
		return errors.Join(append(c.faults, err, errUnread)...)
	}
	return errors.Join(c.faults...)
}

func explainSyntax(data []byte, err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the file is empty")
	}
	for i, line := range strings.Split(string(data), "\n") {
		if indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]; strings.Contains(indent, "\t") {
			return fmt.Errorf("line %d begins with a tab: YAML indents with blanks (%w)", i+1, err)
		}
	}
	return fmt.Errorf("read YAML: %w", err)
}

// checker walks a document beside the type that it is to be read into.
type checker struct {
	faults []error
	unread bool // a value could not be read
}

func (c *checker) fault(unread bool, format string, a ...any) {
	c.faults = append(c.faults, fmt.Errorf(format, a...))
	c.unread = c.unread || unread
}

// value checks one value; key is what it is the value of.
func (c *checker) value(n *yaml.Node, t reflect.Type, key string) {
	switch {
	case n.Kind == yaml.AliasNode:
		c.fault(true, "line %d: aliases are not used here: write the value out", n.Line)
	case n.Tag == "!!null":
	case t.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		for _, item := range n.Content {
			c.value(item, t.Elem(), key)
		}
	case isSettings(t) && n.Kind == yaml.MappingNode:
		c.settings(n, t)
	case t.Kind() == reflect.Slice, isSettings(t), n.Decode(reflect.New(t).Interface()) != nil:
		c.fault(true, "line %d: %s: want %s", n.Line, key, form(t))
	}
}

// settings checks a mapping whose keys are the fields of a struct.
func (c *checker) settings(n *yaml.Node, t reflect.Type) {
	fields := yamlFields(t)
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		ft, known := fields[key.Value]
		switch {
		case retired(t, key.Value) != "":
			c.fault(false, "line %d: %s is no setting any more: %s", key.Line, key.Value, retired(t, key.Value))
		case !known:
			c.fault(key.Kind != yaml.ScalarNode, "line %d: %q is not a setting%s", key.Line, key.Value, nearest(key.Value, fields))
		case seen[key.Value]:
			c.fault(true, "line %d: %s is there twice", key.Line, key.Value)
		default:
			c.value(n.Content[i+1], ft, key.Value)
		}
		seen[key.Value] = true
	}
}

// retired says what to do instead of a setting that earlier versions had.
func retired(t reflect.Type, key string) string {
	if t != reflect.TypeFor[Artifacts]() {
		return ""
	}
	switch key {
	case "set":
		return "sets are made while bootd runs: nestctl artifact create rack1"
	case "ipxe_dir":
		return "name the folder in artifacts.bases"
	case "expose_key_over":
		return "each set has its own exposure: nestctl artifact create rack1 --serve tftp"
	}
	return ""
}

// isSettings tells our structs from types such as netip.Addr, which are
// written as text.
func isSettings(t reflect.Type) bool { return t.Kind() == reflect.Struct && len(yamlFields(t)) > 0 }

// form says how a value of the type is written.
func form(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[netip.Addr]():
		return "an IP address like 192.0.2.10"
	case t == reflect.TypeFor[netip.Prefix]():
		return "a network like 192.0.2.0/24"
	case t.Kind() == reflect.Slice && isSettings(t.Elem()):
		return "a list, each entry beginning with a hyphen"
	case t.Kind() == reflect.Slice:
		return "a list like [a, b]"
	case isSettings(t):
		return "settings, each as name: value"
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64:
		return "a whole number"
	}
	return "text"
}

func yamlFields(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ","); name != "" {
			fields[name] = t.Field(i).Type
		}
	}
	return fields
}

// nearest suggests the known name that takes the fewest edits, if that is few.
func nearest(key string, fields map[string]reflect.Type) string {
	best, edits := "", len(key)/2+1
	for name := range fields {
		if d := distance(key, name); d < edits || d == edits && name < best {
			best, edits = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is the Levenshtein distance of two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
