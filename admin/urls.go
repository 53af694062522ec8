package admin

import (
	"fmt"
	"net/http"

	"github.com/nestboot/nestboot/artifact"
	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/ipxebuild"
	"github.com/nestboot/nestboot/pki/links"
)

// chainView is an iPXE chain URL as clients see it: the reference API's fields,
// and ours beside them. Its addresses are null when its token can't be shown
// again.
type chainView struct {
	linkView
	Machines []string `json:"machines"`
	URL      *string  `json:"url"`    // the one over https, unless there is none
	Script   *string  `json:"script"` // what URL answers
	HTTP     *string  `json:"http_url"`
	HTTPS    *string  `json:"https_url"`
}

// uefiView is a UEFI HTTP Boot URL as clients see it. An address is null where
// the protocol is off or the set has no file for the processor.
type uefiView struct {
	linkView
	SetID      int64   `json:"ipxe_boot_artifact_id"`
	Set        string  `json:"ipxe_boot_artifact_name"`
	HTTPAMD64  *string `json:"http_url_amd64"`
	HTTPARM64  *string `json:"http_url_arm64"`
	HTTPSAMD64 *string `json:"https_url_amd64"`
	HTTPSARM64 *string `json:"https_url_arm64"`
}

func (a *API) chainView(l links.Link) (chainView, error) {
	v := chainView{linkView: newLinkView(l, a.Now()), Machines: append([]string{}, l.Machines...)}
	v.HTTP, v.HTTPS = a.addresses(l, "/chain/", "")
	v.URL = v.HTTPS
	if v.URL == nil {
		v.URL = v.HTTP
	}
	if v.URL == nil {
		return v, nil
	}
	script, err := boot.ChainScript(l.Name, *v.URL)
	if err != nil {
		return v, fmt.Errorf("script of chain url %d: %w", l.ID, err)
	}
	text := string(script)
	v.Script = &text
	return v, nil
}

func (a *API) chainViews() ([]chainView, error) {
	list := []chainView{}
	for _, l := range a.Links.List(links.Chain) {
		v, err := a.chainView(l)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

func (a *API) uefiView(l links.Link) uefiView {
	v := uefiView{linkView: newLinkView(l, a.Now()), SetID: l.Set}
	set, ok := a.Artifacts.Get(l.Set)
	if !ok { // deleted meanwhile, and the URL with it
		return v
	}
	v.Set = set.Spec.Name
	if v.Status == "ready" && set.Status == artifact.Expired {
		v.Status, v.Reason = "expired", "its set has expired"
	}
	for _, f := range set.Files {
		switch f.Format {
		case ipxebuild.FormatEFIAMD64:
			v.HTTPAMD64, v.HTTPSAMD64 = a.addresses(l, "/uefi/", "/"+f.Name)
		case ipxebuild.FormatEFIARM64:
			v.HTTPARM64, v.HTTPSARM64 = a.addresses(l, "/uefi/", "/"+f.Name)
		}
	}
	return v
}

// chainURLs answers ipxe_chain_urls and what is below it.
func (a *API) chainURLs(w http.ResponseWriter, req *http.Request, path []string) error {
	switch {
	case len(path) == 0 && req.Method == http.MethodGet:
		list, err := a.chainViews()
		if err != nil {
			return err
		}
		return answer(w, map[string]any{"ipxe_chain_urls": list})
	case len(path) == 0 && req.Method == http.MethodPost:
		l, err := a.createLink(w, req, links.Chain, 0)
		if err != nil {
			return err
		}
		return a.answerChain(w, http.StatusCreated, l)
	case len(path) == 0:
		return notAllowed("GET and POST")
	case len(path) > 1:
		return notFound(req.URL.Path)
	}
	l, err := a.linkOf(links.Chain, path[0])
	switch {
	case err != nil:
		return err
	case req.Method == http.MethodGet:
		return a.answerChain(w, http.StatusOK, l)
	case req.Method == http.MethodDelete:
		if l, err = a.Links.Revoke(req.Context(), links.Chain, l.ID); err != nil {
			return err
		}
		return a.answerChain(w, http.StatusOK, l)
	}
	return notAllowed("GET and DELETE")
}

func (a *API) answerChain(w http.ResponseWriter, status int, l links.Link) error {
	v, err := a.chainView(l)
	if err != nil {
		return err
	}
	return write(w, status, map[string]any{"ipxe_chain_url": v})
}

// uefiURLs answers ipxe_boot_artifacts/{id}/uefi_http_boot_urls and what is
// below it.
func (a *API) uefiURLs(w http.ResponseWriter, req *http.Request, set int64, path []string) error {
	switch {
	case len(path) == 0 && req.Method == http.MethodGet:
		return a.listUEFI(w, set)
	case len(path) == 0 && req.Method == http.MethodPost:
		l, err := a.createLink(w, req, links.UEFI, set)
		if err != nil {
			return err
		}
		return a.answerUEFI(w, http.StatusCreated, l)
	case len(path) == 0:
		return notAllowed("GET and POST")
	case len(path) > 1:
		return notFound(req.URL.Path)
	}
	l, err := a.linkOf(links.UEFI, path[0])
	switch {
	case err != nil:
		return err
	case l.Set != set:
		return notFound(req.URL.Path)
	case req.Method == http.MethodGet:
		return a.answerUEFI(w, http.StatusOK, l)
	case req.Method == http.MethodDelete:
		if l, err = a.Links.Revoke(req.Context(), links.UEFI, l.ID); err != nil {
			return err
		}
		return a.answerUEFI(w, http.StatusOK, l)
	}
	return notAllowed("GET and DELETE")
}

func (a *API) listUEFI(w http.ResponseWriter, set int64) error {
	list := []uefiView{}
	for _, l := range a.Links.OfSet(set) {
		list = append(list, a.uefiView(l))
	}
	return answer(w, map[string]any{"uefi_http_boot_urls": list})
}

func (a *API) answerUEFI(w http.ResponseWriter, status int, l links.Link) error {
	return write(w, status, map[string]any{"uefi_http_boot_url": a.uefiView(l)})
}
