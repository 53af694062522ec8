package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// format is the flag --output: how an answer is printed.
type format struct {
	value   string
	allowed []string
}

// outputFlag adds --output to a command, with these formats or, without any, all
// of them. The first is the default.
func outputFlag(cmd *cobra.Command, allowed ...string) *format {
	if len(allowed) == 0 {
		allowed = []string{"table", "json", "yaml"}
	}
	f := &format{value: allowed[0], allowed: allowed}
	cmd.Flags().VarP(f, "output", "o", "print as `FORMAT`: "+orList(allowed))
	return f
}

// String, Set and Type make it a flag's value.
func (f *format) String() string { return f.value }
func (f *format) Type() string   { return "FORMAT" }
func (f *format) Set(s string) error {
	if !slices.Contains(f.allowed, s) {
		return fmt.Errorf("want %s", orList(f.allowed))
	}
	f.value = s
	return nil
}

// orList is "a, b or c".
func orList(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// print prints an answer as it is, or what table makes of it.
func (f *format) print(w io.Writer, answer json.RawMessage, table func() error) error {
	switch f.value {
	case "json":
		return printJSON(w, answer)
	case "yaml":
		return printYAML(w, answer)
	}
	return table()
}

// tell sends a request to bootd and prints the answer: as it is, or as the table
// that show prints.
func tell[A any](ctx context.Context, c *client, w io.Writer, f *format, method, path string, in any, show func(io.Writer, A) error) error {
	var raw json.RawMessage
	if err := c.call(ctx, method, path, in, &raw); err != nil {
		return err
	}
	return f.print(w, raw, func() error {
		var answer A
		if err := json.Unmarshal(raw, &answer); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		return show(w, answer)
	})
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// printYAML prints JSON as YAML, with its fields in the order in which they
// came.
func printYAML(w io.Writer, answer json.RawMessage) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(answer, &doc); err != nil { // JSON is YAML
		return fmt.Errorf("read answer: %w", err)
	}
	block(&doc)
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&doc); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	_, err := b.WriteTo(w)
	return err
}

// block takes JSON's braces and quotes away; what needs quotes gets them again.
func block(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		block(c)
	}
}
