package admin

import (
	"fmt"
	"net/http"
	"strconv"
)

// operation is what clients of the reference API poll after an asynchronous
// call. Here sets are made and deleted before the call is answered, so an
// operation is over when it is first seen, and need not be stored: its number
// tells which set it was about.
type operation struct {
	ID     int64  `json:"id"`
	Status string `json:"status"` // pending, running, succeeded, failed or cancelled
	Action string `json:"action"`
}

func createOperation(set int64) int64 { return 2*set - 1 }
func deleteOperation(set int64) int64 { return 2 * set }

// operation answers operations/{id}.
func (a *API) operation(w http.ResponseWriter, req *http.Request, text string) error {
	id, err := strconv.ParseInt(text, 10, 64)
	last, lastErr := a.Artifacts.LastID(req.Context())
	if lastErr != nil {
		return lastErr
	}
	set := (id + 1) / 2
	_, exists := a.Artifacts.Get(set)
	if err != nil || id < 1 || set > last || id == deleteOperation(set) && exists {
		return &apiError{Status: http.StatusNotFound, Message: fmt.Sprintf("operation %.60q does not exist", text), Code: "not_found"}
	}
	o := operation{id, "succeeded", "create"}
	if id == deleteOperation(set) {
		o.Action = "delete"
	}
	return answer(w, map[string]any{"operation": o})
}
