package httpboot

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/pki"
)

// Where addresses with a token begin, for example
// https://boot.<domain>/artifacts/<token>/<file>.
const (
	downloads = "/artifacts/"
	uefiURLs  = "/uefi/"
	chains    = "/chain/"
)

// artifact answers GET and HEAD of a set's file. UEFI HTTP Boot asks for the
// size by HEAD first and reads the body on the same connection (seen with OVMF
// 2022.11 and 2025.02). What holds a key leaves only where the operator chose
// so (T14). A name that no set has is nothing to record: pxelinux alone tries
// ten at each boot.
func (s *Server) artifact(w http.ResponseWriter, req *http.Request, name string) error {
	start := s.Now()
	if err := only(req, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	f, err := s.Site.Artifact(req.Context(), name, req.TLS != nil)
	if errors.Is(err, fs.ErrNotExist) {
		return refuse(http.StatusNotFound, "not-found", nil)
	}
	return s.sendArtifact(w, req, start, boot.Event{Name: name}, f, err)
}

// download answers GET and HEAD of a set's file at its address with a token. A
// wrong token is recorded, but neither it nor what was asked for with it: the
// two may have changed places (T19).
func (s *Server) download(w http.ResponseWriter, req *http.Request, path string) error {
	start := s.Now()
	if err := only(req, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	token, name, _ := strings.Cut(path, "/")
	f, err := s.Site.Download(req.Context(), token, name)
	w.Header().Set("Cache-Control", "no-store") // it holds a key
	e := boot.Event{Detail: "by its download address"}
	var unknown *pki.Refusal
	if errors.As(err, &unknown) {
		err = s.failed(req, refusalOf(err))
	}
	if unknown == nil && !errors.Is(err, fs.ErrNotExist) {
		e.Name = name // a file that the set has
	}
	return s.sendArtifact(w, req, start, e, f, err)
}

// sendArtifact sends the file, or says why not, and records either. A HEAD is
// recorded when it is refused only: after one that was answered comes a GET,
// after the other firmware asks no more.
func (s *Server) sendArtifact(w http.ResponseWriter, req *http.Request, start time.Time, e boot.Event, f Artifact, err error) error {
	stage := boot.StageArtifact
	var withheld *Withheld
	var refused *refusal
	switch {
	case errors.As(err, &refused): // who asks has not proved it
	case errors.As(err, &withheld):
		err = refuse(http.StatusForbidden, withheld.Code, err)
		if withheld.Code == codeNotExposed {
			stage = boot.StageKey
		}
	case errors.Is(err, fs.ErrNotExist):
		err = refuse(http.StatusNotFound, "not-found", err)
	case err != nil:
		err = unavailable("not-ready", fmt.Errorf("make file: %w", err))
	default:
		e.Bytes, err = s.serveContent(w, req, f.SHA256, time.Time{}, bytes.NewReader(f.Data))
	}
	if req.Method == http.MethodGet || err != nil {
		s.finish(&e, stage, req, start, err)
	}
	return err
}

// codeNotExposed is the code of a Withheld by which a key was kept back.
const codeNotExposed = "key-not-exposed"
