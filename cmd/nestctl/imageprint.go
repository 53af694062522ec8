package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

func printImages(w io.Writer, a struct {
	Images []image `json:"images"`
},
) error {
	if len(a.Images) == 0 {
		_, err := fmt.Fprintln(w, "There is no release here yet. Get the first one: nestctl image pull flatcar:stable:current")
		return err
	}
	rows := [][]string{{"RELEASE", "ARCH", "SIZE", "STATUS", "PROVED BY", "PULLED"}}
	for _, i := range a.Images {
		rows = append(rows, []string{
			i.System + ":" + i.Channel + ":" + i.Version, i.Arch, mebibytes(i.Size), imageStatus(i), imageProof(i), i.Pulled.UTC().Format(time.RFC3339),
		})
	}
	return table(w, rows)
}

func imageStatus(i image) string {
	switch {
	case len(i.Damaged) > 0:
		return "damaged"
	case i.InUse:
		return "in use"
	}
	return "here"
}

func imageProof(i image) string {
	if s := i.Proof.Signed; s != nil && len(s.Key) > 16 {
		return "OpenPGP " + s.Key[len(s.Key)-16:] + ", " + s.At.UTC().Format(time.DateOnly)
	}
	if i.Proof.Kind == "none" {
		return "nothing"
	}
	return "SHA-256 given"
}

func printImage(w io.Writer, a imageAnswer) error {
	i := a.Image
	rows := [][]string{
		{"Release", i.System + ":" + i.Channel + ":" + i.Version},
		{"Architecture", i.Arch},
		{"Status", imageStatus(i)},
		{"Source", i.Source},
		{"Pulled", i.Pulled.UTC().Format(time.RFC3339)},
		{"Arguments", strings.Join(i.Args, " ")},
		{"Proved by", imageProof(i)},
	}
	if s := i.Proof.Signed; s != nil {
		rows = append(rows, []string{"Primary key", s.Key}, []string{"Signed by", s.Subkey + ", " + s.At.UTC().Format(time.RFC3339)})
	}
	if len(i.Damaged) > 0 {
		rows = append(rows, []string{"Damaged", strings.Join(i.Damaged, ", ") + ": pull it again"})
	}
	rows = append(rows, []string{"\nFILE", "SIZE", "SHA-256"}, []string{i.Kernel.Name, mebibytes(i.Kernel.Size), i.Kernel.SHA256})
	for _, f := range i.Initrds {
		rows = append(rows, []string{f.Name, mebibytes(f.Size), f.SHA256})
	}
	return table(w, rows)
}

func printVerified(w io.Writer, i image) error {
	if len(i.Damaged) > 0 {
		_, err := fmt.Fprintf(w, "%s is damaged, and not served. Pull it again: nestctl image pull %s:%s:%s --arch %s\n", i.ID, i.System, i.Channel, i.Version, i.Arch)
		return err
	}
	_, err := fmt.Fprintf(w, "%s is whole: every file has its digest.\n", i.ID)
	return err
}

func printRemoved(w io.Writer, a imageAnswer) error {
	_, err := fmt.Fprintf(w, "%s is removed.\n", a.Image.ID)
	return err
}

// printPulled says how machines get what was pulled.
func printPulled(w io.Writer, i image) error {
	_, err := fmt.Fprintf(w, "%s (%s), proved by: %s\n\nNext: name it in bootd.yaml and reload bootd:\n  images: [{name: %s, arch: %s, release: \"%s:%s:%s\"}]\n",
		i.ID, mebibytes(i.Size), imageProof(i), i.System, i.Arch, i.System, i.Channel, i.Version)
	return err
}

// collected is what a garbage collection has removed.
type collected struct {
	Collected struct {
		Releases []string `json:"releases"`
		Files    int      `json:"files"`
		Bytes    int64    `json:"bytes"`
	} `json:"collected"`
}

func printCollected(dry bool) func(io.Writer, collected) error {
	verb := "removed"
	if dry {
		verb = "would be removed"
	}
	return func(w io.Writer, a collected) error {
		for _, id := range a.Collected.Releases {
			if _, err := fmt.Fprintln(w, printable(id)); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintf(w, "%d releases and %d files %s, %s\n", len(a.Collected.Releases), a.Collected.Files, verb, mebibytes(a.Collected.Bytes))
		return err
	}
}
