package main

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nestboot/nestboot/pki"
)

// explanation is bootd's answer to auth/explain.
type explanation struct {
	Identity *struct {
		Kind     string   `json:"kind"`
		ID       int64    `json:"id"`
		Name     string   `json:"name"`
		Machines []string `json:"machines"`
	} `json:"identity"`
	Code   string     `json:"code"` // of the refusal
	Reason string     `json:"reason"`
	Steps  []pki.Step `json:"steps"`
}

// authentication is the command group for who is let in.
func authentication(socket *string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "auth", Short: "Who is let in, and why", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(authExplain(socket))
	return cmd
}

// errRefused is the answer of auth explain, which has been printed; main makes an
// exit status of it.
var errRefused = errors.New("refused")

func authExplain(socket *string) *cobra.Command {
	var cert, token string
	cmd := &cobra.Command{
		Use: "explain (--cert FILE | --token TOKEN)", Short: "Say which rule accepts or refuses a certificate or a token", Args: cobra.NoArgs,
		Long: "Ask bootd what it would answer to a client with this certificate or this token, now, and which rule\n" +
			"decides. FILE is PEM or DER, the client's certificate first, its intermediates behind it; a private key\n" +
			"in it is not sent. A token is a secret: give it by standard input (--token -), where other users of\n" +
			"this host can't see it. The whole URL will do.\n\n" +
			"The exit status is 0 for what is accepted, 3 for what is refused, 1 if it could not be asked.",
		Example: "  nestctl auth explain --cert node7.pem\n" +
			"  nestctl auth explain --token - < url.txt",
	}
	cmd.Flags().StringVar(&cert, "cert", "", "`FILE` with the certificate that a client shows")
	cmd.Flags().StringVar(&token, "token", "", "`TOKEN` of a URL, or the URL; - is standard input")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		question, err := explainQuestion(cmd.InOrStdin(), cert, token)
		if err != nil {
			return err
		}
		c, err := dial(cmd.Context(), *socket)
		if err != nil {
			return err
		}
		var raw json.RawMessage
		if err := c.call(cmd.Context(), http.MethodPost, "/auth/explain", question, &raw); err != nil {
			return err
		}
		var e explanation
		if err := json.Unmarshal(raw, &e); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		if err := output.print(cmd.OutOrStdout(), raw, func() error { return printExplanation(cmd.OutOrStdout(), e) }); err != nil {
			return err
		}
		if e.Identity == nil {
			return errRefused
		}
		return nil
	}
	return cmd
}

func explainQuestion(stdin io.Reader, cert, token string) (map[string]string, error) {
	switch {
	case (cert == "") == (token == ""):
		return nil, errors.New("say either --cert or --token")
	case cert != "":
		text, _, err := readCertificates(cert)
		return map[string]string{"certificate": text}, err
	case token == "-":
		line, err := readAll("standard input", stdin, maxPassword)
		if err != nil {
			return nil, err
		}
		if token = strings.TrimSpace(string(line)); token == "" {
			return nil, errors.New("--token -: standard input is empty: give it the token or the URL")
		}
	}
	question := map[string]string{"token": tokenOf(token)}
	if over, _, ok := strings.Cut(token, "://"); ok {
		question["over"] = strings.ToLower(over)
	}
	return question, nil
}

// tokenOf finds the token in a URL; what is no URL is a token.
func tokenOf(s string) string {
	for part := range strings.SplitSeq(s, "/") {
		if _, err := pki.ParseSecret(part); err == nil {
			return part
		}
	}
	return s
}

// maxCertificates bounds a file of certificates.
const maxCertificates = 1 << 20

// readCertificates reads the certificates of a PEM or DER file and returns
// them as PEM, and whether there was a private key beside them, which it leaves
// out.
func readCertificates(path string) (text string, key bool, err error) {
	data, err := readFile(path, maxCertificates)
	if err != nil {
		return "", false, err
	}
	if one, err := x509.ParseCertificate(data); err == nil {
		data = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: one.Raw})
	}
	var out bytes.Buffer
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "CERTIFICATE":
			out.Write(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			key = true
		}
	}
	if out.Len() == 0 {
		return "", key, fmt.Errorf("%s holds no certificate in PEM or DER", path)
	}
	return out.String(), key, nil
}

func printExplanation(w io.Writer, e explanation) error {
	rows := [][]string{{"RULE", "ANSWER", "WHY"}}
	for _, s := range e.Steps {
		rows = append(rows, []string{s.Rule, cmp.Or(s.Code, "ok"), s.Reason})
	}
	if err := table(w, rows); err != nil {
		return err
	}
	if e.Identity == nil {
		_, err := fmt.Fprintf(w, "\nrefused: %s\n%s\n", e.Code, e.Reason)
		return err
	}
	who := fmt.Sprintf("%s %s", kindWords(e.Identity.Kind), e.Identity.Name)
	machines := "any machine"
	if len(e.Identity.Machines) > 0 {
		machines = "the machines " + strings.Join(e.Identity.Machines, ", ")
	}
	if kind := e.Identity.Kind; kind == string(pki.KindUEFI) || kind == "download" {
		machines = "files alone: who boots is proved by what is in them"
	}
	_, err := fmt.Fprintf(w, "\naccepted: %s, for %s\n", who, machines)
	return err
}

// kindWords says what a kind of credential is.
func kindWords(kind string) string {
	switch pki.Kind(kind) {
	case pki.KindSet:
		return "certificate of artifact set"
	case pki.KindCA:
		return "certificate of the registered authority"
	case pki.KindPin:
		return "pinned certificate"
	case pki.KindURL:
		return "chain URL"
	case pki.KindUEFI:
		return "UEFI HTTP Boot URL"
	case "download":
		return "download address of artifact set"
	}
	return kind
}
