package httpboot

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"regexp"
	"strings"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/pki"
)

// plain answers port 80: the files of sets for UEFI HTTP Boot, and those URLs
// with a token that may be used in the clear.
func (s *Server) plain(w http.ResponseWriter, req *http.Request) error {
	path := req.URL.Path
	if rest, ok := strings.CutPrefix(path, uefiURLs); ok {
		return s.uefi(w, req, rest)
	}
	rest, ok := strings.CutPrefix(path, chains)
	if !ok {
		return s.artifact(w, req, strings.TrimPrefix(path, "/"))
	}
	if !hostForm.MatchString(req.Host) { // it goes into a script
		return refuse(http.StatusBadRequest, "bad-host", fmt.Errorf("host %s", boot.Excerpt(req.Host, 80)))
	}
	return s.chain(w, req, rest, "http://"+req.Host)
}

// hostForm is a host name or address, with a port or without.
var hostForm = regexp.MustCompile(`^([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?$`)

// chain answers what lies below /chain/: the script of a chain URL, and below
// that what the script and its plan ask for.
func (s *Server) chain(w http.ResponseWriter, req *http.Request, path, base string) error {
	w.Header().Set("Cache-Control", "no-store")
	token, rest, deeper := strings.Cut(path, "/")
	by := s.byToken(req, base, token)
	if !deeper {
		return s.chainScript(w, req, by)
	}
	rest, ok := strings.CutPrefix(rest, "ipxe/")
	if !ok {
		return refuse(http.StatusNotFound, "not-found", nil)
	}
	return s.boot(w, req, rest, by)
}

// chainScript answers GET and HEAD of a chain URL. It begins no boot: that its
// script does. A HEAD is recorded when it is refused only.
func (s *Server) chainScript(w http.ResponseWriter, req *http.Request, by way) (err error) {
	start := s.Now()
	e := boot.Event{}
	defer func() {
		if req.Method == http.MethodGet || err != nil {
			s.finish(&e, boot.StageChain, req, start, err)
		}
	}()
	if err := only(req, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	id, err := s.identify(req, by, &e)
	if err != nil {
		return err
	}
	e.Name = id.Name
	body, err := boot.ChainScript(id.Name, by.base)
	if err != nil {
		return fmt.Errorf("render script: %w", err)
	}
	e.Bytes = int64(len(body))
	return answerBytes(w, req, "text/plain; charset=utf-8", body)
}

// uefi answers GET and HEAD of what lies below /uefi/<token>/: a set's file for
// each processor, and beside it the script that iPXE looks for in its folder.
// No certificate is asked for and nothing is redirected, since firmware does
// neither. A name that the set does not have is nothing to record: iPXE asks
// for a script beside itself at each boot.
func (s *Server) uefi(w http.ResponseWriter, req *http.Request, path string) error {
	start := s.Now()
	w.Header().Set("Cache-Control", "no-store") // it holds a key
	if err := only(req, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	token, name, _ := strings.Cut(path, "/")
	f, id, err := s.Site.UEFI(req.Context(), token, name, req.TLS != nil)
	e := boot.Event{Detail: "by its UEFI HTTP Boot URL"}
	var refused *pki.Refusal
	if errors.As(err, &refused) {
		err = s.admit(req, id, err, &e)
		return s.sendArtifact(w, req, start, e, f, err)
	}
	if denied := s.admit(req, id, nil, &e); denied != nil {
		return s.sendArtifact(w, req, start, e, f, denied)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return refuse(http.StatusNotFound, "not-found", nil)
	}
	e.Name = name // a file that the set has: what else is asked for with a token may be one
	return s.sendArtifact(w, req, start, e, f, err)
}
