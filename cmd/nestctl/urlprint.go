package main

import (
	"fmt"
	"io"
	"strings"
)

func printURLs(w io.Writer, all allURLs) error {
	if len(all.Chain)+len(all.UEFI) == 0 {
		_, err := fmt.Fprintln(w, "There is no URL yet. Make one: nestctl url create chain NAME, or nestctl url create uefi NAME --set SET")
		return err
	}
	rows := [][]string{{"ID", "KIND", "NAME", "SET", "STATUS", "ENDS", "OVER", "USES", "LAST USED"}}
	row := func(kind, set string, u linkBase) {
		rows = append(rows, []string{
			fmt.Sprint(u.ID), kind, u.Name, set, u.Status, when(u.ExpiresAt, "never"), over(u.Protocols), fmt.Sprint(u.Uses), when(u.LastUsed, "never"),
		})
	}
	for _, u := range all.Chain {
		row("chain", "-", u.linkBase)
	}
	for _, u := range all.UEFI {
		row("uefi", u.Set, u.linkBase)
	}
	return table(w, rows)
}

// over is how a table says which protocols a URL answers over.
func over(protocols string) string {
	switch protocols {
	case "http_only":
		return "http"
	case "https_only":
		return "https"
	}
	return "http,https"
}

func (u linkBase) rows(kind string) [][]string {
	return [][]string{
		{"URL", fmt.Sprintf("%s (%s, number %d)", u.Name, kind, u.ID)},
		{"Status", strings.TrimSuffix(u.Status+": "+u.Reason, ": ")},
		{"Ends", when(u.ExpiresAt, "never")},
		{"Used", fmt.Sprintf("%d times, last %s", u.Uses, when(u.LastUsed, "never"))},
		{"Over", over(u.Protocols)},
		{"", u.Means},
	}
}

// addresses adds rows for those addresses that there are.
func addresses(rows [][]string, named ...any) [][]string {
	for i := 0; i+1 < len(named); i += 2 {
		if address, ok := named[i+1].(*string); ok && address != nil {
			rows = append(rows, []string{fmt.Sprint(named[i]), *address})
		}
	}
	return rows
}

func printChain(w io.Writer, a chainAnswer) error {
	u := a.URL
	rows := u.rows("chain")
	machines := "any"
	if len(u.Machines) > 0 {
		machines = "only " + strings.Join(u.Machines, ", ")
	}
	rows = append(rows, []string{"Machines", machines})
	rows = addresses(rows, "Address", u.HTTPS, "Address", u.HTTP)
	if u.URL == nil {
		rows = append(rows, []string{"Address", lostToken})
		return table(w, rows)
	}
	if err := table(w, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nScript, where one can be pasted:\n\n%s", u.Script)
	return err
}

const lostToken = "cannot be shown: it was made with a secret that is lost. It works; revoke it and make another to have one"

func printNewChain(w io.Writer, a chainAnswer) error {
	if err := printChain(w, a); err != nil {
		return err
	}
	text := fmt.Sprintf("\nNext: give the address to an iPXE, or paste the script. That iPXE must trust the certificate of\n"+
		"%s; a stock one needs a publicly trusted one, or --http. To end it: nestctl url revoke %s\n", hostOf(a.URL.URL), word(a.URL.Name))
	switch {
	case a.URL.HTTP != nil && a.URL.HTTPS != nil:
		text = fmt.Sprintf("\nNext: give an address to an iPXE, or paste the script. Where that iPXE can't verify the certificate of\n"+
			"%s, take the http address, in the script too. To end it: nestctl url revoke %s\n", hostOf(a.URL.URL), word(a.URL.Name))
	case a.URL.HTTP != nil:
		text = fmt.Sprintf("\nNext: give the address to an iPXE, or paste the script. To end it: nestctl url revoke %s\n", word(a.URL.Name))
	}
	_, err := io.WriteString(w, text)
	return err
}

func printUEFI(w io.Writer, a uefiAnswer) error {
	u := a.URL
	rows := append(u.rows("uefi"), []string{"Set", fmt.Sprintf("%s (number %d)", u.Set, u.SetID)})
	rows = addresses(rows, "x86-64", u.HTTPSAMD64, "x86-64", u.HTTPAMD64, "arm64", u.HTTPSARM64, "arm64", u.HTTPARM64)
	if u.HTTPSAMD64 == nil && u.HTTPAMD64 == nil && u.HTTPSARM64 == nil && u.HTTPARM64 == nil {
		rows = append(rows, []string{"Address", lostToken})
	}
	return table(w, rows)
}

func printNewUEFI(w io.Writer, a uefiAnswer) error {
	if err := printUEFI(w, a); err != nil {
		return err
	}
	text := "\nNext: enter the address as a boot option, or hand it out by DHCP (option 67; vendor class HTTPClient).\n"
	if a.URL.HTTPSAMD64 != nil || a.URL.HTTPSARM64 != nil {
		text += "For https the firmware must trust this server's root: nestctl ca export --format esl -o cacerts.esl\n"
	}
	_, err := fmt.Fprintf(w, "%sTo end it: nestctl url revoke %s\n", text, word(a.URL.Name))
	return err
}

func printRevokedChain(w io.Writer, a chainAnswer) error {
	return printRevoked(w, "chain", a.URL.linkBase)
}

func printRevokedUEFI(w io.Writer, a uefiAnswer) error {
	return printRevoked(w, "uefi", a.URL.linkBase)
}

func printRevoked(w io.Writer, kind string, u linkBase) error {
	_, err := fmt.Fprintf(w, "%s URL %s is revoked: its token is refused, and its connections are closed.\n", kind, u.Name)
	return err
}
