package httpboot

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/ignition"
	"github.com/nestboot/nestboot/pki"
)

// machine answers the name that never requests a certificate: a running
// machine's Ignition and phone-home, each with a token of its own, the URLs
// with a token, and those files of sets that anybody may have.
func (s *Server) machine(w http.ResponseWriter, req *http.Request, host Host) error {
	switch path := req.URL.Path; path {
	case "/ipxe/ignition":
		return s.ignition(w, req)
	case "/ipxe/done":
		return s.done(w, req)
	default:
		if rest, ok := strings.CutPrefix(path, chains); ok {
			return s.chain(w, req, rest, host.URL)
		}
		return s.files(w, req)
	}
}

// files answers what firmware asks for over HTTPS.
func (s *Server) files(w http.ResponseWriter, req *http.Request) error {
	if rest, ok := strings.CutPrefix(req.URL.Path, downloads); ok {
		return s.download(w, req, rest)
	}
	if rest, ok := strings.CutPrefix(req.URL.Path, uefiURLs); ok {
		return s.uefi(w, req, rest)
	}
	return s.artifact(w, req, strings.TrimPrefix(req.URL.Path, "/"))
}

// ignition answers GET /ipxe/ignition: the machine's whole configuration, for
// the grant that travelled in its initrd (T20, T21).
func (s *Server) ignition(w http.ResponseWriter, req *http.Request) (err error) {
	start := s.Now()
	e := boot.Event{}
	defer func() { s.finish(&e, boot.StageIgnition, req, start, err) }()
	if err := only(req, http.MethodGet); err != nil {
		return err
	}
	token, err := bearer(req)
	if err != nil {
		return s.failed(req, err)
	}
	// The base is asked for first: a grant is not spent on what cannot be answered.
	base, err := s.Site.Base()
	if err != nil {
		return unavailable("not-ready", err)
	}
	session, done, err := s.Grants.Fetch(req.Context(), token, clientAddr(req))
	e.Boot, e.Machine = session.Boot, session.Machine // known also for most refusals
	if err != nil {
		return s.grantFailed(req, err)
	}
	body, err := s.renderIgnition(base, session, done)
	if err != nil {
		return err
	}
	e.Name, e.Bytes = session.Name, int64(len(body))
	return answerBytes(w, req, "application/vnd.coreos.ignition+json", body)
}

func (s *Server) renderIgnition(base ignition.Base, session pki.Session, done pki.Token) ([]byte, error) {
	body, err := base.Render(ignition.Values{
		Hostname: session.Name,
		Done:     ignition.Done{URL: s.bootURL() + "/ipxe/done", Token: done.Encode()},
		RootPEM:  s.rootPEM(),
	})
	if err != nil {
		return nil, fmt.Errorf("render ignition config: %w", err)
	}
	return body, nil
}

// done answers POST /ipxe/done: the machine runs. Its grant is burned.
func (s *Server) done(w http.ResponseWriter, req *http.Request) (err error) {
	start := s.Now()
	e := boot.Event{}
	defer func() { s.finish(&e, boot.StageDone, req, start, err) }()
	if err := only(req, http.MethodPost); err != nil {
		return err
	}
	token, err := bearer(req)
	if err != nil {
		return s.failed(req, err)
	}
	session, err := s.Grants.Done(req.Context(), token)
	e.Boot, e.Machine = session.Boot, session.Machine // known also for most refusals
	again := errors.Is(err, pki.ErrAlreadyDone)
	if err != nil && !again {
		return s.grantFailed(req, err)
	}
	if again {
		e.Detail = "reported again"
	}
	// Also when it reports again: the first report may have been cut short.
	s.Site.Done(session.Machine, session.Boot)
	s.admission.end(session.Machine)
	return answerBytes(w, req, "text/plain; charset=utf-8", []byte("ok\n"))
}

// bearer reads the token of the Authorization header (RFC 6750 section 2.1).
func bearer(req *http.Request) (pki.Token, error) {
	scheme, value, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return pki.Token{}, refuse(http.StatusUnauthorized, "no-token", errors.New("no bearer token in the Authorization header"))
	}
	t, err := pki.ParseToken(value)
	if err != nil {
		return pki.Token{}, refuse(http.StatusUnauthorized, "bad-token", err)
	}
	return t, nil
}

// grantRefusal maps what pki says of a grant to a status: 410 for one that was
// good once, 403 for a step with another certificate than the one before, 409
// for a step out of turn, 401 for a grant that is not this client's, 503 for a
// passing fault.
func grantRefusal(err error) error {
	var g *pki.GrantError
	if !errors.As(err, &g) {
		return unavailable("not-ready", err)
	}
	switch g.Code {
	case pki.CodeGrantBurned, pki.CodeGrantExpired, pki.CodeGrantExhausted:
		return refuse(http.StatusGone, g.Code, err)
	case pki.CodeGrantOtherCredential:
		return refuse(http.StatusForbidden, g.Code, err)
	case pki.CodeGrantState:
		return refuse(http.StatusConflict, g.Code, err)
	}
	return refuse(http.StatusUnauthorized, g.Code, err)
}

// grantFailed counts what grantRefusal answers with 401 as a failed attempt to
// prove who asks.
func (s *Server) grantFailed(req *http.Request, err error) error {
	if err = grantRefusal(err); asRefusal(err).status == http.StatusUnauthorized {
		return s.failed(req, err)
	}
	return err
}

func (s *Server) rootPEM() []byte {
	var out []byte
	for _, root := range s.Site.Roots() {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})...)
	}
	return out
}
