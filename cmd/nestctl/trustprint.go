package main

import (
	"fmt"
	"io"
	"strings"
)

func printTrustedList(w io.Writer, a trustedList) error {
	if len(a.Trusted) == 0 {
		_, err := fmt.Fprintln(w, "No certificate of others is trusted: machines boot with those of artifact sets.\nTo add one: nestctl trust add NAME --ca FILE, or --pin FILE")
		return err
	}
	rows := [][]string{{"ID", "NAME", "KIND", "ENDS", "MACHINES", "USES", "LAST USED", "FAULTS"}}
	for _, t := range a.Trusted {
		rows = append(rows, []string{
			fmt.Sprint(t.ID), t.Name, t.kind(), when(t.NotAfter, "never"), t.machines(), fmt.Sprint(t.Uses), when(t.LastUsed, "never"), t.faults(),
		})
	}
	return table(w, rows)
}

func (t trustedEntry) kind() string {
	if t.Kind == "pin" {
		return "pin (" + t.Match + ")"
	}
	return "authority"
}

func (t trustedEntry) machines() string {
	if len(t.Machines) == 0 {
		return "any"
	}
	return fmt.Sprint(len(t.Machines))
}

func (t trustedEntry) faults() string {
	if len(t.Faults) == 0 {
		return "-"
	}
	return strings.Join(t.Faults, "; ")
}

func printTrusted(w io.Writer, a trustedAnswer) error {
	t := a.Trusted
	rows := [][]string{
		{"Trusted", fmt.Sprintf("%s (number %d)", t.Name, t.ID)},
		{"Kind", t.kind()},
		{"", t.Means},
		{"Ends", when(t.NotAfter, "never")},
	}
	for _, c := range t.Certificates {
		rows = append(rows, []string{"Certificate", c.Subject + ", until " + day(c.NotAfter)}, []string{"", "SHA-256 " + c.Fingerprint})
	}
	if t.Kind == "ca" {
		rows = append(rows, []string{"Names", orAny(t.Allow)})
	}
	rows = append(rows, []string{"Machines", orAny(t.Machines)})
	if t.CRL != nil {
		rows = append(rows, []string{"Revocations", t.CRL.File + t.CRL.URL + "; while it is out of date: " + t.CRL.Stale})
	} else if t.Kind == "ca" {
		rows = append(rows, []string{"Revocations", "no list is looked at: a certificate is good until it ends or the authority is removed"})
	}
	for _, l := range t.Lists {
		rows = append(rows, []string{"", fmt.Sprintf("list of %s: made %s, next due %s, %d revoked", l.Issuer, stamp(l.ThisUpdate), when(l.NextUpdate, "not said"), l.Revoked)})
	}
	rows = append(rows, []string{"Used", fmt.Sprintf("%d times, last %s", t.Uses, when(t.LastUsed, "never"))})
	for _, u := range t.UsedBy[:min(len(t.UsedBy), 10)] {
		rows = append(rows, []string{"", "by " + u.Subject + " as machine " + u.Machine + " at " + stamp(u.At)})
	}
	for _, f := range t.Faults {
		rows = append(rows, []string{"Fault", f})
	}
	return table(w, rows)
}

func orAny(list []string) string {
	if len(list) == 0 {
		return "any"
	}
	return "only " + strings.Join(list, ", ")
}

// printNewTrusted tells of a new entry, and of the generation that boot files for
// it are best made for.
func printNewTrusted(w io.Writer, a trustedAnswer, newest generation) error {
	if err := printTrusted(w, a); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nNext: see what a certificate is answered: nestctl auth explain --cert FILE\n"+
		"      make boot files with its key where the key is: nestctl artifact build --cert FILE --key FILE\n"+
		"      --root root.pem --url %s (nestctl ca export --generation %d > root.pem)\n"+
		"To take it back: nestctl trust remove %s\n", newest.URL, newest.Number, word(a.Trusted.Name))
	return err
}
