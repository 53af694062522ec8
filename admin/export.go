package admin

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/nestboot/nestboot/pki/serving"
)

// exported is a root, and a host name whose certificate leads to it.
type exported struct {
	root *x509.Certificate
	host string
}

// exportRoots answers what machines must trust, in the ?format that the one who
// is to trust it wants: of the newest ?generation, of a numbered one, or of all
// that there are; a signature list is of all unless it is told.
func (a *API) exportRoots(w http.ResponseWriter, req *http.Request) error {
	q := req.URL.Query()
	which := q.Get("generation")
	if which == "" && q.Get("format") == "esl" {
		which = "all" // firmware trusts them all or fails with the next rotation
	}
	roots, err := a.rootsOf(which)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	mediaType := "application/octet-stream"
	for _, r := range roots {
		switch format := q.Get("format"); format {
		case "", "pem":
			mediaType = "application/x-pem-file"
			err = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: r.root.Raw})
		case "der":
			if len(roots) > 1 {
				return invalid("format", "der holds one root: name its generation, or take another format")
			}
			out.Write(r.root.Raw)
		case "esl":
			err = writeSignatureList(&out, r.root, a.Org)
		case "fingerprint":
			mediaType = "text/plain; charset=utf-8"
			_, err = fmt.Fprintf(&out, "%x  %s\n", sha256.Sum256(r.root.Raw), r.host)
		default:
			return invalid("format", "%.20q is none of pem, der, esl, fingerprint", format)
		}
		if err != nil {
			return fmt.Errorf("encode root: %w", err)
		}
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(out.Len()))
	_, _ = out.WriteTo(w) // nobody is left to tell
	return nil
}

// rootsOf are the roots of one generation, or of all: then also those of what
// boot. shows, which may be given by files for that name alone.
func (a *API) rootsOf(which string) ([]exported, error) {
	var roots []exported
	for _, g := range a.Authority.Generations() {
		if which != "all" && which != strconv.Itoa(g.Number) && (which != "" || !g.Newest) {
			continue
		}
		if root := a.Authority.Trust(g.Number); root != nil { // else dropped meanwhile
			roots = append(roots, exported{root, g.Host})
		}
	}
	if which == "all" {
		return a.withBoot(roots), nil
	}
	if len(roots) == 0 {
		return nil, noGeneration(which)
	}
	return roots, nil
}

func (a *API) withBoot(roots []exported) []exported {
	host := strings.TrimPrefix(a.BootURL, "https://")
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	for _, root := range a.Roots() {
		if !slices.ContainsFunc(roots, func(r exported) bool { return r.root.Equal(root) }) {
			roots = append(roots, exported{root, a.labelOf(root, host)})
		}
	}
	return roots
}

// labelOf is the host name, if what it shows leads to a root; given certificates
// may have put others in the place of the authority's.
func (a *API) labelOf(root *x509.Certificate, host string) string {
	sum := fmt.Sprintf("%x", sha256.Sum256(root.Raw))
	if slices.ContainsFunc(a.Servers(), func(s serving.Status) bool { return s.Host == host && s.Root == sum }) {
		return host
	}
	return "(shown nowhere now)"
}

// certX509 is EFI_CERT_X509_GUID (UEFI 2.10, 32.4.1).
var certX509 = uuid.MustParse("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")

// writeSignatureList writes an EFI_SIGNATURE_LIST with one certificate (UEFI
// 2.10, 32.4.1), as the variable TlsCaCertificate holds it; several may stand
// one behind the other. owner is the UUID of whoever enrols it.
func writeSignatureList(w *bytes.Buffer, cert *x509.Certificate, owner string) error {
	id, err := uuid.Parse(owner)
	if err != nil {
		return fmt.Errorf("owner of signature list: %w", err)
	}
	const guidSize, headerSize = 16, 28
	signature := guidSize + len(cert.Raw)
	w.Write(efiGUID(certX509))
	for _, n := range []int{headerSize + signature, 0, signature} { // SignatureListSize, SignatureHeaderSize, SignatureSize
		w.Write(binary.LittleEndian.AppendUint32(nil, uint32(n)))
	}
	w.Write(efiGUID(id))
	w.Write(cert.Raw)
	return nil
}

// efiGUID is a UUID as UEFI stores it: its first three fields little end first
// (UEFI 2.10, appendix A).
func efiGUID(u uuid.UUID) []byte {
	return []byte{u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]}
}
