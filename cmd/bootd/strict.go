package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decodeStrict reads one YAML document into out, a pointer to a struct with
// yaml tags. Every unknown key is an error with its line and the nearest known
// name; all faults are returned at once.
func decodeStrict(data []byte, out any) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("the file is empty")
		}
		return fmt.Errorf("read YAML: %w", err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("the file holds more than one YAML document")
	}
	errs := unknownKeys(&doc, reflect.TypeOf(out))
	err := doc.Decode(out)
	var typed *yaml.TypeError
	if errors.As(err, &typed) {
		for _, e := range typed.Errors {
			errs = append(errs, errors.New(e))
		}
	} else if err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// unknownKeys walks the document beside the type that it is read into.
func unknownKeys(n *yaml.Node, t reflect.Type) []error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var errs []error
	switch {
	case n.Kind == yaml.DocumentNode:
		return unknownKeys(n.Content[0], t)
	case n.Kind == yaml.AliasNode:
		return []error{fmt.Errorf("line %d: aliases are not used here: write the value out", n.Line)}
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for _, item := range n.Content {
			errs = append(errs, unknownKeys(item, t.Elem())...)
		}
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Struct:
		fields := yamlFields(t)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			ft, ok := fields[key.Value]
			if !ok {
				errs = append(errs, fmt.Errorf("line %d: %q is not a setting%s", key.Line, key.Value, nearest(key.Value, fields)))
				continue
			}
			errs = append(errs, unknownKeys(n.Content[i+1], ft)...)
		}
	}
	return errs
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
