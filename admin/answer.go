package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
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
	var e *apiError
	if !errors.As(err, &e) {
		a.Log.ErrorContext(req.Context(), "request failed", "err", err)
		e = &apiError{Status: http.StatusInternalServerError, Message: "internal error; see the log of bootd", Code: "internal_error"}
	}
	if err := write(w, e.Status, e); err != nil {
		a.Log.ErrorContext(req.Context(), "answer was not sent", "err", err)
	}
}
