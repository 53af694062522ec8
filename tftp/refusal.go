package tftp

import (
	"errors"
	"fmt"
	"io/fs"
)

// Error codes of RFC 1350, appendix, and RFC 2347 (8).
const (
	codeUndefined  = 0
	codeNotFound   = 1
	codeAccess     = 2
	codeIllegal    = 4
	codeUnknownTID = 5
	codeOption     = 8
)

// maxMessage keeps an ERROR packet on one console line and below the size of
// the requests that can draw it.
const maxMessage = 120

// Refusal is an error that the client is told word by word, in an ERROR packet:
// firmware shows it on the machine's console. Code is one of RFC 1350's. Of the
// message 120 bytes are sent; what is not printable ASCII is sent as "?".
type Refusal struct {
	Code    uint16
	Message string
}

// Error tells the code and the message.
func (r *Refusal) Error() string {
	return fmt.Sprintf("refused with tftp error %d: %s", r.Code, r.Message)
}

// refusalOf is the one place where an error becomes what a client may know of it.
func refusalOf(err error) *Refusal {
	var r *Refusal
	switch {
	case errors.As(err, &r):
		return r
	case errors.Is(err, fs.ErrNotExist):
		return &Refusal{Code: codeNotFound, Message: "file not found"}
	case errors.Is(err, fs.ErrPermission):
		return &Refusal{Code: codeAccess, Message: "access violation"}
	}
	for _, e := range []error{errStopping, errDeadline, errSilent} {
		if errors.Is(err, e) {
			return &Refusal{Code: codeUndefined, Message: e.Error()}
		}
	}
	return &Refusal{Code: codeUndefined, Message: "internal error"}
}
