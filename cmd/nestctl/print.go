package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// table prints rows of columns. Some of it comes from foreign certificates: what
// a terminal would take for a command is replaced.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		for i, cell := range r {
			blank := cell[:len(cell)-len(strings.TrimLeft(cell, "\n"))]
			r[i] = blank + printable(cell[len(blank):])
		}
		if _, err := fmt.Fprintln(t, strings.Join(r, "\t")); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return t.Flush()
}

func printSets(w io.Writer, sets []set) error {
	if len(sets) == 0 {
		_, err := fmt.Fprintln(w, "There is no artifact set yet. Make the first one: nestctl artifact create rack1 --serve tftp")
		return err
	}
	rows := [][]string{{"ID", "NAME", "STATUS", "ENDS", "IPXE", "SERVED OVER", "LAST USED", "MACHINES"}}
	for _, s := range sets {
		rows = append(rows, []string{
			fmt.Sprint(s.ID), s.Name, s.Status, ends(s.ExpiresAt), s.Base, served(s), when(s.LastUsed, "never"), fmt.Sprint(len(s.UsedBy)),
		})
	}
	return table(w, rows)
}

func ends(t *time.Time) string { return when(t, "renews itself") }

func when(t *time.Time, never string) string {
	if t == nil {
		return never
	}
	return t.UTC().Format(time.RFC3339)
}

func served(s set) string {
	if s.Keyless {
		return "all (keyless)"
	}
	return cmp.Or(strings.Join(s.Exposure, ","), "none")
}

// printDetails prints a set and its files; with their addresses if it is asked to.
func printDetails(w io.Writer, s set, addresses bool) error {
	machines := "any"
	if len(s.Machines) > 0 {
		machines = "only " + strings.Join(s.Machines, ", ")
	}
	rows := [][]string{
		{"Set", fmt.Sprintf("%s (number %d)", s.Name, s.ID)},
		{"Status", s.Status},
		{"Ends", ends(s.ExpiresAt)},
		{"Made of", "iPXE " + s.Base + " for " + strings.Join(s.Archs, ", ")},
		{"Trust root", fmt.Sprintf("generation %d", s.Generation)},
		{"Machines", machines},
		{"Served over", served(s)},
		{"", s.Means},
	}
	if s.Reason != "" {
		rows = append(rows, []string{"Reason", s.Reason})
	}
	if s.Certificate != nil {
		rows = append(rows, []string{"Certificate", s.Certificate.Serial + ", until " + s.Certificate.NotAfter.UTC().Format(time.RFC3339)})
	}
	if addresses {
		rows = append(rows, []string{"Last used", when(s.LastUsed, "never")})
		for _, u := range s.UsedBy[:min(len(s.UsedBy), 10)] {
			rows = append(rows, []string{"", "by " + u.Machine + " at " + u.At.UTC().Format(time.RFC3339)})
		}
	}
	if err := table(w, rows); err != nil {
		return err
	}
	return printFiles(w, s, addresses)
}

func printFiles(w io.Writer, s set, addresses bool) error {
	rows := [][]string{{"\nFILE", "FOR", "DHCP OPTION 93"}}
	if addresses {
		rows[0] = append(rows[0], "ADDRESS")
	}
	for _, f := range s.Files {
		u := useOf(f.Name, f.Format)
		if u.archs == "" {
			continue
		}
		row := []string{f.Name, u.what, u.archs}
		if addresses && f.URL != nil {
			row = append(row, *f.URL)
		}
		rows = append(rows, row)
	}
	if err := table(w, rows); err != nil {
		return err
	}
	for _, m := range s.Missing {
		if _, err := fmt.Fprintln(w, "missing: "+m); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}

// printExposure says what a change of exposure means.
func printExposure(w io.Writer, s set) error {
	_, err := fmt.Fprintf(w, "set %s is served over: %s\n%s.\n", s.Name, served(s), s.Means)
	return err
}

// printNextStep says what to do with a new set.
func printNextStep(w io.Writer, s set) error {
	open := s.Keyless || strings.Contains(strings.Join(s.Exposure, ","), "tftp")
	text := "\nNext: let DHCP hand out one of these file names (docs/dhcp has whole configurations),\n" +
		"or write the image to a stick: nestctl artifact download " + s.Name + "\n"
	if !open {
		text = "\nNext: write the image to a stick: nestctl artifact download " + s.Name + "\n" +
			"or, to boot by PXE, let TFTP serve the set: nestctl artifact update " + s.Name + " --serve tftp\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// word is a name as a shell takes it.
func word(name string) string {
	plain := func(r rune) bool {
		return r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || strings.ContainsRune("-_.:@%+", r)
	}
	if strings.ContainsFunc(name, func(r rune) bool { return !plain(r) }) {
		return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return name
}
