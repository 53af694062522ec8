package httpboot

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/nestboot/nestboot/boot"
)

// errNotExposed names the setting that would let a file with a key out.
var errNotExposed = errors.New("this file holds a private key; set artifacts.expose_key_over to include http to serve it to anybody on the network")

// plain answers port 80: the files of sets, for UEFI HTTP Boot.
func (s *Server) plain(w http.ResponseWriter, req *http.Request) error {
	return s.artifact(w, req, strings.TrimPrefix(req.URL.Path, "/"))
}

// artifact answers GET and HEAD of a set's file. UEFI HTTP Boot asks for the
// size by HEAD first and reads the body on the same connection (seen with OVMF
// 2022.11). A file with a key never leaves over HTTPS without a
// client's proof, and over plain HTTP only where the operator chose so (T14).
func (s *Server) artifact(w http.ResponseWriter, req *http.Request, name string) (err error) {
	start := s.Now()
	if err := only(req, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	f, ok := s.Site.Artifact(name)
	if !ok {
		return refuse(http.StatusNotFound, "not-found", nil)
	}
	e := boot.Event{Name: name}
	stage := boot.StageArtifact
	if req.Method == http.MethodGet {
		defer func() { s.finish(&e, stage, req, start, err) }()
	}
	if f.Key && (!f.Exposed || req.TLS != nil) {
		stage = boot.StageKey
		return refuse(http.StatusForbidden, "key-not-exposed", errNotExposed)
	}
	e.Bytes, err = serveContent(w, req, f.SHA256, time.Time{}, bytes.NewReader(f.Data))
	return err
}
