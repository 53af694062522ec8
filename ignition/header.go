package ignition

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// Bounds that keep a small file from costing much: Butane's work grows with the square of the entries of one list
// (files against links), the YAML library's with that of the keys of one mapping.
const (
	maxNodes = 20_000 // some 2,000 files
	maxKeys  = 100    // Butane's largest mapping knows 20
)

// header is what tells one Butane file from another. It is read first, and with it the file's shape is judged before
// any library walks it.
type header struct {
	Variant string `yaml:"variant"`
	Version string `yaml:"version"`
}

func readHeader(butane []byte) (header, error) {
	if len(butane) > MaxButane {
		return header{}, fmt.Errorf("file has %d bytes, the limit is %d: move large contents behind a URL (source:)", len(butane), MaxButane)
	}
	dec := yaml.NewDecoder(bytes.NewReader(butane))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return header{}, errors.New("file is empty")
	} else if err != nil {
		return header{}, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return header{}, errors.New("file has a second YAML document, which would be ignored: remove it with its --- line")
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return header{}, errors.New("file is not a YAML mapping: begin with variant: flatcar")
	}
	nodes := 0
	if err := judge(&doc, &nodes); err != nil {
		return header{}, err
	}
	var h header
	if err := doc.Decode(&h); err != nil {
		return header{}, err
	}
	return h, nil
}

// judge walks the syntax tree, in which an alias is still a single node.
func judge(n *yaml.Node, nodes *int) error {
	*nodes++
	switch {
	case *nodes > maxNodes:
		return fmt.Errorf("line %d: file has more than %d YAML values: move files into an archive behind a URL", n.Line, maxNodes)
	case n.Kind == yaml.AliasNode:
		// Butane loses line numbers behind an alias, and nested aliases grow exponentially.
		return fmt.Errorf("line %d, column %d: alias *%s: aliases are not supported, write the value out", n.Line, n.Column, n.Value)
	case n.Kind == yaml.MappingNode && len(n.Content) > 2*maxKeys:
		return fmt.Errorf("line %d, column %d: mapping has more than %d keys", n.Line, n.Column, maxKeys)
	}
	for _, child := range n.Content {
		if err := judge(child, nodes); err != nil {
			return err
		}
	}
	return nil
}
