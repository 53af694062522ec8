package httpboot

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// refusal is an answer that is not what the client asked for.
type refusal struct {
	status int
	code   string // short and stable; the client sees it and nothing else
	err    error  // for the operator; may be nil
	retry  time.Duration
}

func (r *refusal) Error() string {
	if r.err == nil {
		return r.code
	}
	return r.err.Error()
}

func (r *refusal) Unwrap() error { return r.err }

func refuse(status int, code string, err error) error {
	return &refusal{status: status, code: code, err: err}
}

// unavailable is a fault that will pass: Ignition retries any 5xx and gives up
// at any 4xx (seen with 2.14).
func unavailable(code string, err error) error {
	return &refusal{status: http.StatusServiceUnavailable, code: code, err: err, retry: 5 * time.Second}
}

// asRefusal is the only place where an error becomes a status.
func asRefusal(err error) *refusal {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	return &refusal{status: http.StatusInternalServerError, code: "internal-error", err: err}
}

// answerRefusal tells the client the code and nothing else.
func answerRefusal(w http.ResponseWriter, r *refusal) {
	h := w.Header()
	if r.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(int(r.retry.Seconds())))
	}
	body := r.code + "\n"
	var withheld *Withheld
	if errors.As(r.err, &withheld) { // no secret, and it names the remedy
		body += withheld.Reason + "\n"
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(r.status)
	_, _ = io.WriteString(w, body) // nobody is left to tell
}

// answerBytes sends a body that is made for this request alone.
func answerBytes(w http.ResponseWriter, req *http.Request, contentType string, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	if req.Method == http.MethodHead {
		return nil
	}
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("send answer: %w", err)
	}
	return nil
}

// only refuses methods other than those named.
func only(req *http.Request, methods ...string) error {
	for _, m := range methods {
		if req.Method == m {
			return nil
		}
	}
	return refuse(http.StatusMethodNotAllowed, "method-not-allowed", fmt.Errorf("method %.20q", req.Method))
}

// clientAddr is the address that a request came from.
func clientAddr(req *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(req.RemoteAddr)
	if err != nil { // net/http sets it from the connection
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}
