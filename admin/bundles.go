package admin

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net/http"
	"slices"

	"github.com/nestboot/nestboot/images/bundle"
	"github.com/nestboot/nestboot/images/depot"
	"github.com/nestboot/nestboot/images/release"
)

// Bundles says how releases cross an air gap.
type Bundles struct {
	Key     ed25519.PrivateKey // signs what is exported
	Trusted []string           // fingerprints of those whose bundles are taken
	Bases   string             // folder of base binaries, which go along
	Reserve int64              // bytes that stay free
}

// exportImages answers a bundle of the releases that are named. The client must
// verify what it gets: an error in the middle only ends it.
func (a *API) exportImages(w http.ResponseWriter, req *http.Request) error {
	if req.Method != http.MethodPost {
		return notAllowed("POST")
	}
	var in struct {
		Releases []string `json:"releases"` // ids
		Bases    bool     `json:"bases"`    // base binaries too
	}
	body, err := readBody(w, req)
	if err != nil {
		return err
	}
	if err := decodeFields(body, &in); err != nil {
		return err
	}
	var refs []release.Ref
	for _, id := range in.Releases {
		r, err := release.ParseRef(id, "")
		if err != nil {
			return invalid("releases", "%v", err)
		}
		refs = append(refs, r)
	}
	bases := ""
	if in.Bases {
		bases = a.Bundles.Bases
	}
	e, err := a.Images.Export(refs, bases, a.Bundles.Key)
	if err != nil {
		if asAPIError(err) == nil {
			err = &apiError{Status: http.StatusConflict, Message: err.Error(), Code: "export_failed"}
		}
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	if err := e.Write(req.Context(), w); err != nil {
		a.Log.ErrorContext(req.Context(), "a bundle was not written to its end", "err", err)
		return nil
	}
	a.Log.InfoContext(req.Context(), "a bundle was exported", "releases", len(refs), "key", e.Key)
	return nil
}

// importImages takes a bundle as the body.
func (a *API) importImages(w http.ResponseWriter, req *http.Request) error {
	if req.Method != http.MethodPost {
		return notAllowed("POST")
	}
	q := req.URL.Query()
	done, err := a.Images.Import(req.Context(), req.Body, depot.ImportOptions{
		Trusted: func(f string) bool { return f == q.Get("key") || slices.Contains(a.Bundles.Trusted, f) },
		Force:   q.Get("force") == "true", Bases: a.Bundles.Bases, Reserve: a.Bundles.Reserve,
	})
	var untrusted *bundle.Untrusted
	switch {
	case errors.As(err, &untrusted):
		err = &apiError{Status: http.StatusForbidden, Message: err.Error(), Code: "untrusted-bundle"}
	case err != nil && asAPIError(err) == nil && !errors.Is(err, context.Canceled):
		err = &apiError{Status: http.StatusUnprocessableEntity, Message: err.Error(), Code: "import_failed"}
	}
	if err != nil {
		a.Log.WarnContext(req.Context(), "a bundle was not imported", "err", err)
		return err
	}
	a.Log.InfoContext(req.Context(), "a bundle was imported", "releases", done.Releases, "bases", done.Bases, "key", done.Key)
	return answer(w, map[string]any{"imported": done})
}
