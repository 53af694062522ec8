package httpboot

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/pki"
)

// way is how the caller of a request proves who it is, and where it finds the
// rest of its boot.
type way struct {
	base       string // of the URLs in its script; with the token, if there is one
	generation int
	identify   func(at time.Time) (pki.Identity, error)
}

// byCertificate is the way of machines of sets, and of those with a
// certificate that an operator registered.
func (s *Server) byCertificate(req *http.Request, host Host) way {
	return way{base: host.URL, generation: host.Generation, identify: func(at time.Time) (pki.Identity, error) {
		return s.Site.Identify(req.TLS.PeerCertificates, at)
	}}
}

// byToken is the way of those who were given a chain URL; base is the URL of
// the host that they asked.
func (s *Server) byToken(req *http.Request, base, token string) way {
	return way{base: base + chains + token, identify: func(at time.Time) (pki.Identity, error) {
		return s.Site.IdentifyURL(pki.KindURL, token, scheme(req), at)
	}}
}

// scheme is the name of a request's protocol.
func scheme(req *http.Request) string {
	if req.TLS != nil {
		return "https"
	}
	return "http"
}

// identify proves who asks, anew at every request: a connection may outlive
// the right to use it (T12). From here on the connection acts for that
// identity, and is cut off when it is not good any more. e is told of whom.
func (s *Server) identify(req *http.Request, by way, e *boot.Event) (pki.Identity, error) {
	id, err := by.identify(s.Now())
	return id, s.admit(req, id, err, e)
}

// admit finishes what identify began; err is what it said.
func (s *Server) admit(req *http.Request, id pki.Identity, err error, e *boot.Event) error {
	if err == nil {
		e.Credential = credentialOf(id, 0).String()
		if !s.shown.show(connOf(req), id) {
			return refuse(http.StatusRequestTimeout, "client-left", errors.New("the connection is closed"))
		}
		err = s.Site.Good(id, s.Now()) // it may have changed before we showed it
	}
	if err == nil {
		return nil
	}
	var r *pki.Refusal
	if errors.As(err, &r) {
		e.Credential = credentialOf(r.Identity, 0).String()
		return s.failed(req, refusalOf(err))
	}
	return refusalOf(err)
}

// refusalOf maps what pki says of a credential to a status: 401 for none, 404
// for a URL that does not exist, 403 for one that proves nothing.
func refusalOf(err error) error {
	var r *pki.Refusal
	if !errors.As(err, &r) {
		return fmt.Errorf("identify: %w", err)
	}
	switch r.Code {
	case pki.CodeNoCertificate:
		return refuse(http.StatusUnauthorized, r.Code, err)
	case pki.CodeUnknownToken:
		return refuse(http.StatusNotFound, r.Code, err)
	}
	return refuse(http.StatusForbidden, r.Code, err)
}

// credentialOf is an identity in the words of package boot.
func credentialOf(id pki.Identity, generation int) boot.Credential {
	return boot.Credential{
		Kind: string(id.Kind), ID: id.ID, Name: id.Name, Set: id.Set, Subject: id.Subject,
		Generation: generation, Fingerprint: id.Fingerprint,
	}
}
