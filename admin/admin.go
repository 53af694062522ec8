// Package admin is the API for operators: artifact sets, who may boot, machines
// and events, in JSON.
//
// Its paths, envelopes and errors keep the shape of the API that clients of
// this field already speak. It listens apart from everything that machines
// reach; today only on a Unix socket, where whoever may open it is the local
// administrator. Begin at API.
package admin

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nestboot/nestboot/artifact"
	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/images/depot"
	"github.com/nestboot/nestboot/images/pull"
	"github.com/nestboot/nestboot/inventory"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/links"
	"github.com/nestboot/nestboot/pki/serving"
	"github.com/nestboot/nestboot/pki/trusted"
)

// API answers operators. All exported fields are required.
type API struct {
	Org       string                   // UUID of the organization; part of every path
	BootURL   string                   // https://host[:port] of the name under which sets are downloaded
	HTTPURL   string                   // http://host[:port] of the same name
	IPXEURL   func(host string) string // https://host[:port] of a host name for iPXE
	Machines  *inventory.Machines
	Journal   *inventory.Journal
	Artifacts *artifact.Sets
	Images    *depot.Depot
	// Pull brings a release into Images, and tells how far it is.
	Pull      func(ctx context.Context, r pull.Request, tell func(pull.Progress)) (depot.Manifest, error)
	Bundles   Bundles
	Authority *pki.Authority
	Trusted   *trusted.Trusted
	Links     *links.Links
	// Servers are the certificates that the server shows.
	Servers func() []serving.Status
	// Roots are all that those must trust who ask the host of BootURL, now or
	// after a rotation.
	Roots func() []*x509.Certificate
	// Identify says who presents a certificate chain, leaf first; Explain asks the
	// same, rule by rule, up to the one that decides.
	Identify func(chain []*x509.Certificate, at time.Time) (pki.Identity, error)
	Explain  func(chain []*x509.Certificate, at time.Time) []pki.Step
	Log      *slog.Logger
	Now      func() time.Time
	Version  string

	exposing sync.Mutex // held from reading to writing a set's exposure
}

// apiError is the body of every answer that is not 2xx.
type apiError struct {
	Status  int                 `json:"status"`
	Message string              `json:"error"`
	Code    string              `json:"code"`
	Details map[string][]string `json:"error_details,omitempty"` // by field
}

func (e *apiError) Error() string { return e.Message }

// ServeHTTP routes by hand, because clients of the reference API send doubled
// and trailing slashes and do not follow redirects.
func (a *API) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	path := strings.FieldsFunc(req.URL.Path, func(r rune) bool { return r == '/' })
	if err := a.route(w, req, path); err != nil {
		a.fail(w, req, err)
	}
}

func (a *API) route(w http.ResponseWriter, req *http.Request, path []string) error {
	if len(path) < 3 || path[0] != "api" || path[1] != "v1" || path[2] != "orgs" {
		return notFound(req.URL.Path)
	}
	if len(path) > 3 && path[3] != a.Org {
		return &apiError{Status: http.StatusNotFound, Message: fmt.Sprintf("organization %.60q does not exist", path[3]), Code: "not_found"}
	}
	if len(path) > 4 {
		if noun := a.noun(path[4]); noun != nil {
			return noun(w, req, path[5:])
		}
	}
	if req.Method != http.MethodGet {
		return notAllowed("GET")
	}
	if len(path) == 3 {
		return answer(w, map[string]any{"orgs": []any{map[string]string{"id": a.Org, "version": a.Version}}})
	}
	return a.read(w, req, path[4:])
}

// noun returns what answers a resource that can be changed, nil for any other.
func (a *API) noun(name string) func(w http.ResponseWriter, req *http.Request, path []string) error {
	switch name {
	case "ipxe_boot_artifacts":
		return a.artifacts
	case "ipxe_chain_urls":
		return a.chainURLs
	case "trusted_certificates":
		return a.trustedCertificates
	case "certificates":
		return a.certificates
	case "authority":
		return a.authority
	case "images":
		return a.images
	case "auth":
		return a.explain
	}
	return nil
}

// read answers what can only be looked at.
func (a *API) read(w http.ResponseWriter, req *http.Request, path []string) error {
	switch {
	case len(path) == 1 && path[0] == "machines":
		return a.machines(w)
	case len(path) == 2 && path[0] == "machines":
		return a.machine(w, path[1])
	case len(path) == 1 && path[0] == "events":
		return a.events(w, req)
	case len(path) == 1 && path[0] == "bases":
		return a.bases(w)
	case len(path) == 1 && path[0] == "token_urls":
		return a.tokenURLs(w)
	case len(path) == 2 && path[0] == "operations":
		return a.operation(w, req, path[1])
	}
	return notFound(req.URL.Path)
}

func (a *API) machines(w http.ResponseWriter) error {
	list, err := a.Machines.List()
	if err != nil {
		return err
	}
	return answer(w, map[string]any{"machines": list})
}

// machine answers one machine, by its number or its UUID.
func (a *API) machine(w http.ResponseWriter, id string) error {
	list, err := a.Machines.List()
	if err != nil {
		return err
	}
	for _, m := range list {
		if strconv.FormatInt(m.ID, 10) == id || strings.EqualFold(m.UUID, id) {
			return answer(w, map[string]any{"machine": m})
		}
	}
	return &apiError{Status: http.StatusNotFound, Message: fmt.Sprintf("machine %.60q does not exist", id), Code: "not_found"}
}

// events answers the kept events after ?since=, or with Accept:
// text/event-stream those and all that come (WHATWG HTML, server-sent events);
// there Last-Event-ID counts as since.
func (a *API) events(w http.ResponseWriter, req *http.Request) error {
	since, err := sinceOf(req)
	if err != nil {
		return err
	}
	if req.Header.Get("Accept") != "text/event-stream" {
		events := a.Journal.Since(since)
		if events == nil {
			events = []boot.Event{}
		}
		return answer(w, map[string]any{"events": events})
	}
	past, next, stop := a.Journal.Follow(since)
	defer stop()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	flush := http.NewResponseController(w)
	for _, e := range past {
		if err := writeEvent(w, e); err != nil {
			return nil // the listener has gone
		}
	}
	follow(w, req, flush, next)
	return nil
}

// follow sends what comes until the listener goes or falls behind.
func follow(w http.ResponseWriter, req *http.Request, flush *http.ResponseController, next <-chan boot.Event) {
	for flush.Flush() == nil {
		select {
		case <-req.Context().Done():
			return
		case e, ok := <-next:
			if !ok { // fell behind: say so, the client comes again with Last-Event-ID
				_, _ = fmt.Fprint(w, "event: dropped\ndata: {}\n\n")
				return
			}
			if writeEvent(w, e) != nil {
				return
			}
		}
	}
}

func writeEvent(w http.ResponseWriter, e boot.Event) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	_, err = fmt.Fprintf(w, "id: %d\ndata: %s\n\n", e.ID, data)
	return err
}

func sinceOf(req *http.Request) (int64, error) {
	s := req.Header.Get("Last-Event-ID")
	if s == "" {
		s = req.URL.Query().Get("since")
	}
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, &apiError{Status: http.StatusUnprocessableEntity, Message: fmt.Sprintf("since %.40q is not the number of an event", s), Code: "invalid_value"}
	}
	return n, nil
}

func notFound(path string) error {
	return &apiError{Status: http.StatusNotFound, Message: fmt.Sprintf("%.200q does not exist", path), Code: "not_found"}
}

func notAllowed(methods string) error {
	return &apiError{Status: http.StatusMethodNotAllowed, Message: "only " + methods + " is answered here", Code: "method_not_allowed"}
}
