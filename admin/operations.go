package admin

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/nestboot/nestboot/artifact"
)

// operation is what clients of the reference API poll after an asynchronous
// call. Here sets are made and deleted before the call is answered, so an
// operation is over when it is first seen, and need not be stored: its number
// tells which set it was about. Making a set that is gone is no operation any
// more, because nothing tells whether it ever was there.
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
	set := id/2 + id%2
	if err != nil || id < 1 || set > last {
		return noOperation(text)
	}
	info, exists := a.Artifacts.Get(set)
	o := operation{id, "succeeded", "create"}
	if id == deleteOperation(set) {
		o.Action = "delete"
	}
	switch {
	case o.Action == "create" && info.Status == artifact.Creating, o.Action == "delete" && info.Status == artifact.Deleting:
		o.Status = "running"
	case exists != (o.Action == "create"), info.Status == artifact.Deleting:
		return noOperation(text)
	}
	return answer(w, map[string]any{"operation": o})
}

func noOperation(id string) error {
	return &apiError{Status: http.StatusNotFound, Message: fmt.Sprintf("operation %.60q does not exist", id), Code: "not_found"}
}
