package admin

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/nestboot/nestboot/artifact"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/links"
)

// How the reference API calls the protocols of a URL.
const (
	httpOnly     = "http_only"
	httpsOnly    = "https_only"
	httpAndHTTPS = "http_and_https"
)

// linkInput is what a client sends to make a URL.
type linkInput struct {
	Name      string     `json:"name"`
	ExpiresAt *time.Time `json:"expires_at"`
	Protocols string     `json:"protocols"` // null or absent: httpsOnly
	Machines  []string   `json:"machines"`  // ours: of chain URLs alone
}

// linkView is what URLs of both kinds have in common.
type linkView struct {
	ID          int64       `json:"id"`
	Name        string      `json:"name"`
	Status      string      `json:"status"` // ready, expired (it, or its set) or revoked
	ExpiresAt   *time.Time  `json:"expires_at"`
	Protocols   string      `json:"protocols"`
	Consequence string      `json:"exposure_means"`
	CreatedAt   time.Time   `json:"created_at"`
	Uses        int64       `json:"uses"`
	LastUsed    *time.Time  `json:"last_used"`
	UsedBy      []links.Use `json:"used_by"` // the latest first
	Reason      string      `json:"status_reason,omitempty"`
}

func newLinkView(l links.Link, now time.Time) linkView {
	v := linkView{
		ID: l.ID, Name: l.Name, Status: "ready", ExpiresAt: l.ExpiresAt, Protocols: protocolsName(l.Protocols), Consequence: l.Consequence(),
		CreatedAt: l.Created, Uses: l.Uses, LastUsed: l.LastUsed, UsedBy: append([]links.Use{}, l.UsedBy...),
	}
	if l.ExpiresAt != nil && !now.Before(*l.ExpiresAt) {
		v.Status = "expired"
	}
	if !l.Revoked.IsZero() {
		v.Status = "revoked"
		v.Reason = "revoked, but a restart would forget that until it can be written down: make room for the store"
	}
	return v
}

func protocolsName(list []string) string {
	switch {
	case !slices.Contains(list, links.HTTP):
		return httpsOnly
	case !slices.Contains(list, links.HTTPS):
		return httpOnly
	}
	return httpAndHTTPS
}

func protocolsOf(name string) ([]string, error) {
	switch name {
	case "", httpsOnly:
		return []string{links.HTTPS}, nil
	case httpOnly:
		return []string{links.HTTP}, nil
	case httpAndHTTPS:
		return []string{links.HTTP, links.HTTPS}, nil
	}
	return nil, invalid("protocols", "%.40q is none of %s, %s, %s", name, httpOnly, httpsOnly, httpAndHTTPS)
}

// invalid is the error for one wrong field.
func invalid(field, format string, a ...any) error {
	return &artifact.Invalid{Faults: []artifact.Fault{{Field: field, Code: artifact.CodeInvalid, Message: fmt.Sprintf(format, a...)}}}
}

// createLink makes a URL of what the client sent.
func (a *API) createLink(w http.ResponseWriter, req *http.Request, kind pki.Kind, set int64) (links.Link, error) {
	body, err := readBody(w, req)
	if err != nil {
		return links.Link{}, err
	}
	var in linkInput
	if err := decodeFields(body, &in); err != nil {
		return links.Link{}, err
	}
	protocols, err := protocolsOf(in.Protocols)
	if err != nil {
		return links.Link{}, err
	}
	return a.Links.Create(req.Context(), links.Spec{
		Kind: kind, Name: in.Name, Set: set, ExpiresAt: in.ExpiresAt, Protocols: protocols, Machines: in.Machines,
	})
}

// addresses are the URLs of a link below path, with its token; nil for a
// protocol that is off, and when the token can't be shown again.
func (a *API) addresses(l links.Link, path, file string) (plain, secure *string) {
	token := a.Links.Token(l).Encode()
	if token == "" {
		return nil, nil
	}
	if slices.Contains(l.Protocols, links.HTTP) {
		u := a.HTTPURL + path + token + file
		plain = &u
	}
	if slices.Contains(l.Protocols, links.HTTPS) {
		u := a.BootURL + path + token + file
		secure = &u
	}
	return plain, secure
}

// linkOf finds the link that a path names.
func (a *API) linkOf(kind pki.Kind, text string) (links.Link, error) {
	if id, err := strconv.ParseInt(text, 10, 64); err == nil {
		if l, ok := a.Links.Get(kind, id); ok {
			return l, nil
		}
	}
	return links.Link{}, &apiError{Status: http.StatusNotFound, Message: fmt.Sprintf("url %.60q does not exist", text), Code: "not_found"}
}

// tokenURLs answers every URL of both kinds.
func (a *API) tokenURLs(w http.ResponseWriter) error {
	uefi := []uefiView{}
	for _, l := range a.Links.List(links.UEFI) {
		uefi = append(uefi, a.uefiView(l))
	}
	chain, err := a.chainViews()
	if err != nil {
		return err
	}
	return answer(w, map[string]any{"ipxe_chain_urls": chain, "uefi_http_boot_urls": uefi})
}
