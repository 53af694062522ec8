package admin

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/trusted"
)

// trustedView is a registered authority or pin as clients see it.
type trustedView struct {
	ID           int64         `json:"id"`
	Name         string        `json:"name"`
	Kind         pki.Kind      `json:"kind"`
	PEM          string        `json:"pem"`
	Match        string        `json:"match,omitempty"` // of a pin
	Allow        []string      `json:"allow"`
	Machines     []string      `json:"machines"`
	CRL          *trusted.CRL  `json:"crl"`
	ExpiresAt    *time.Time    `json:"expires_at"`
	Consequence  string        `json:"trust_means"`
	CreatedAt    time.Time     `json:"created_at"`
	NotAfter     *time.Time    `json:"not_after"` // when it accepts nobody any more; null: never
	Certificates []certView    `json:"certificates"`
	Lists        []listView    `json:"revocation_lists"`
	Uses         int64         `json:"uses"`
	LastUsed     *time.Time    `json:"last_used"`
	UsedBy       []trusted.Use `json:"used_by"` // the latest first
	Faults       []string      `json:"faults"`
}

// certView is what is told of any certificate.
type certView struct {
	Subject     string     `json:"subject"`
	Issuer      string     `json:"issuer,omitempty"`
	Serial      string     `json:"serial"`
	Fingerprint pki.Digest `json:"fingerprint"` // SHA-256 of its DER form
	NotBefore   time.Time  `json:"not_before"`
	NotAfter    time.Time  `json:"not_after"`
}

// listView is a revocation list of a registered authority.
type listView struct {
	Issuer     string     `json:"issuer"`
	ThisUpdate time.Time  `json:"this_update"`
	NextUpdate *time.Time `json:"next_update"`
	Revoked    int        `json:"revoked"`
}

func newTrustedView(e trusted.Entry) trustedView {
	v := trustedView{
		ID: e.ID, Name: e.Name, Kind: e.Kind, PEM: e.PEM, Match: e.Match, CRL: e.CRL, ExpiresAt: e.ExpiresAt,
		Allow: append([]string{}, e.Allow...), Machines: append([]string{}, e.Machines...), Consequence: trustMeans(e),
		CreatedAt: e.Created, NotAfter: orNull(e.NotAfter), Certificates: []certView{}, Lists: []listView{},
		Uses: e.Uses, LastUsed: e.LastUsed, UsedBy: append([]trusted.Use{}, e.UsedBy...), Faults: append([]string{}, e.Faults...),
	}
	for _, c := range e.Certificates {
		v.Certificates = append(v.Certificates, certView{c.Subject, c.Issuer, c.Serial, c.Fingerprint, c.NotBefore, c.NotAfter})
	}
	for _, l := range e.Lists {
		v.Lists = append(v.Lists, listView{l.Issuer, l.ThisUpdate, orNull(l.NextUpdate), l.Revoked})
	}
	return v
}

// orNull is null in JSON for no time.
func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// trustMeans says in one sentence what it means to have registered an entry.
func trustMeans(e trusted.Entry) string {
	who := "whoever has the key of this certificate"
	switch {
	case e.Kind == pki.KindCA && len(e.Allow) > 0:
		who = "whoever has a certificate of this authority whose name is " + strings.Join(e.Allow, " or ")
	case e.Kind == pki.KindCA:
		who = "whoever has any certificate of this authority for TLS clients"
	case e.Match == trusted.MatchKey:
		who = "whoever has this key"
	}
	as := "any machine"
	if n := len(e.Machines); n == 1 {
		as = "machine " + e.Machines[0]
	} else if n > 1 {
		as = fmt.Sprintf("any of %d machines", n)
	}
	return who + " can boot as " + as + " and is given its configuration"
}

// trustedCertificates answers trusted_certificates and what is below it.
func (a *API) trustedCertificates(w http.ResponseWriter, req *http.Request, path []string) error {
	switch {
	case len(path) == 0 && req.Method == http.MethodGet:
		list := []trustedView{}
		for _, e := range a.Trusted.List() {
			list = append(list, newTrustedView(e))
		}
		return answer(w, map[string]any{"trusted_certificates": list})
	case len(path) == 0 && req.Method == http.MethodPost:
		return a.addTrusted(w, req)
	case len(path) == 0:
		return notAllowed("GET and POST")
	case len(path) > 1:
		return notFound(req.URL.Path)
	}
	id, err := strconv.ParseInt(path[0], 10, 64)
	if err != nil {
		return noTrusted(path[0])
	}
	e, ok := a.Trusted.Get(id)
	switch {
	case !ok:
		return noTrusted(path[0])
	case req.Method == http.MethodGet:
	case req.Method == http.MethodDelete:
		if e, err = a.Trusted.Remove(req.Context(), id); err != nil {
			return err
		}
	default:
		return notAllowed("GET and DELETE")
	}
	return answer(w, map[string]any{"trusted_certificate": newTrustedView(e)})
}

func noTrusted(id string) error {
	return &apiError{Status: http.StatusNotFound, Message: fmt.Sprintf("trusted certificate %.60q does not exist", id), Code: "not_found"}
}

func (a *API) addTrusted(w http.ResponseWriter, req *http.Request) error {
	body, err := readBody(w, req)
	if err != nil {
		return err
	}
	var spec trusted.Spec
	if err := decodeFields(body, &spec); err != nil {
		return err
	}
	e, err := a.Trusted.Add(req.Context(), spec)
	if err != nil {
		return err
	}
	return write(w, http.StatusCreated, map[string]any{"trusted_certificate": newTrustedView(e)})
}
