package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
	"syscall"

	"github.com/nestboot/nestboot/artifact"
	"github.com/nestboot/nestboot/images/depot"
	"github.com/nestboot/nestboot/images/pull"
	"github.com/nestboot/nestboot/images/signature"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/links"
	"github.com/nestboot/nestboot/pki/trusted"
	"github.com/nestboot/nestboot/store"
)

func answer(w http.ResponseWriter, body any) error { return write(w, http.StatusOK, body) }

func write(w http.ResponseWriter, status int, body any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // nobody is left to tell
	return nil
}

// fail is the only place where an error becomes a status.
func (a *API) fail(w http.ResponseWriter, req *http.Request, err error) {
	e := asAPIError(err)
	if e == nil {
		a.Log.ErrorContext(req.Context(), "request failed", "err", err)
		e = &apiError{Status: http.StatusInternalServerError, Message: "internal error; see the log of bootd", Code: "internal_error"}
	}
	if err := write(w, e.Status, e); err != nil {
		a.Log.ErrorContext(req.Context(), "answer was not sent", "err", err)
	}
}

// asAPIError is nil for an error that is none of the client's business.
func asAPIError(err error) *apiError {
	var e *apiError
	var withheld *artifact.Withheld
	var unsaved *pki.Unsaved
	var refusal *signature.Refusal
	var request *pull.Invalid
	var inUse *depot.InUseError
	faults := faultsOf(err)
	switch {
	case errors.As(err, &e):
		return e
	case len(faults) > 0:
		e = &apiError{Status: http.StatusUnprocessableEntity, Message: err.Error(), Code: faults[0].Code, Details: map[string][]string{}}
		for _, f := range faults {
			e.Details[f.Field] = append(e.Details[f.Field], f.Message)
		}
		return e
	case errors.As(err, &withheld):
		return &apiError{Status: http.StatusConflict, Message: withheld.Error(), Code: withheld.Code}
	case errors.As(err, &unsaved): // before what its cause would be
		e = &apiError{Status: http.StatusServiceUnavailable, Message: err.Error(), Code: "not_saved"}
		if noSpace(err) {
			e.Status, e.Code = http.StatusInsufficientStorage, "no_space"
		}
		return e
	case errors.As(err, &refusal): // the sentence around it says of what
		return &apiError{Status: http.StatusUnprocessableEntity, Message: err.Error(), Code: refusal.Code}
	case errors.As(err, &request):
		return &apiError{Status: http.StatusUnprocessableEntity, Message: err.Error(), Code: "invalid_value"}
	case errors.As(err, &inUse):
		return &apiError{Status: http.StatusConflict, Message: err.Error(), Code: "in_use"}
	case errors.Is(err, depot.ErrUnknown):
		return &apiError{Status: http.StatusNotFound, Message: err.Error(), Code: "not_found"}
	case errors.Is(err, pull.ErrBusy):
		return &apiError{Status: http.StatusConflict, Message: err.Error(), Code: "busy"}
	case errors.Is(err, artifact.ErrUnknown), errors.Is(err, links.ErrUnknown), errors.Is(err, trusted.ErrUnknown),
		errors.Is(err, pki.ErrUnknownGeneration), errors.Is(err, fs.ErrNotExist):
		return &apiError{Status: http.StatusNotFound, Message: "does not exist", Code: "not_found"}
	case errors.Is(err, artifact.ErrBusy):
		return &apiError{Status: http.StatusConflict, Message: err.Error(), Code: "busy"}
	case noSpace(err):
		return &apiError{Status: http.StatusInsufficientStorage, Message: err.Error(), Code: "no_space"}
	}
	return nil
}

func noSpace(err error) bool {
	return errors.Is(err, store.ErrNoSpace) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// faultsOf is what is wrong with the fields of a request, whichever package
// found it.
func faultsOf(err error) []artifact.Fault {
	var ofSet *artifact.Invalid
	var ofLink *links.Invalid
	var ofTrusted *trusted.Invalid
	var faults []artifact.Fault
	switch {
	case errors.As(err, &ofSet):
		return ofSet.Faults
	case errors.As(err, &ofLink):
		for _, f := range ofLink.Faults {
			faults = append(faults, artifact.Fault(f))
		}
	case errors.As(err, &ofTrusted):
		for _, f := range ofTrusted.Faults {
			faults = append(faults, artifact.Fault(f))
		}
	}
	return faults
}
