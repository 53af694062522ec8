package httpboot

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/ignition"
	"github.com/nestboot/nestboot/pki"
)

// ipxe answers the name that requests client certificates: the boot script,
// images, and the machine's own initrd, all over one connection of iPXE's.
func (s *Server) ipxe(w http.ResponseWriter, req *http.Request) error {
	path := req.URL.Path
	if path == "/ipxe/boot" {
		return s.script(w, req)
	}
	if rest, ok := strings.CutPrefix(path, "/ipxe/images/"); ok {
		return s.image(w, req, rest)
	}
	if id, ok := strings.CutPrefix(path, "/ipxe/initrd/"); ok {
		return s.machineInitrd(w, req, id)
	}
	return refuse(http.StatusNotFound, "not-found", nil)
}

// identify proves who asks, anew at every request: a connection may outlive
// the right to use it (T12).
func (s *Server) identify(req *http.Request) (pki.Identity, error) {
	id, err := s.Authority.Verify(req.TLS.PeerCertificates, s.Now())
	if err == nil {
		return id, nil
	}
	var r *pki.Refusal
	if !errors.As(err, &r) {
		return pki.Identity{}, fmt.Errorf("verify client certificate: %w", err)
	}
	if len(req.TLS.PeerCertificates) == 0 {
		return pki.Identity{}, refuse(http.StatusUnauthorized, r.Code, err)
	}
	return pki.Identity{}, refuse(http.StatusForbidden, r.Code, err)
}

// script answers GET /ipxe/boot: what this machine is to do now.
func (s *Server) script(w http.ResponseWriter, req *http.Request) (err error) {
	start := s.Now()
	e := boot.Event{}
	defer func() { s.finish(&e, boot.StageScript, req, start, err) }()
	if err := only(req, http.MethodGet); err != nil {
		return err
	}
	id, err := s.identify(req)
	if err != nil {
		return err
	}
	question, err := boot.ParseRequest(req.URL.Query())
	if err != nil {
		// The caller is one of ours, so it is told on its console.
		e.Code, e.Error = "bad-request", err.Error()
		return s.answerPlan(w, req, &e, boot.Refusal("bad-request", err.Error()))
	}
	question.Addr = clientAddr(req)
	question.Credential = boot.Credential{Set: id.Set, Fingerprint: id.Fingerprint}
	if err := s.Site.Member(id.Set, question.UUID); err != nil {
		e.Name, e.MAC, e.Detail = id.Set, question.MAC, "asked as machine "+question.UUID // whose boot this is not
		return refuse(http.StatusForbidden, CodeMachineNotInSet, err)
	}
	plan := boot.Decide(question, s.Site.Inventory())
	e.Boot = s.Site.Begin(question)
	e.Machine, e.MAC = question.UUID, question.MAC
	plan = s.prepare(req, plan, e.Boot, id, &e)
	s.Log.DebugContext(req.Context(), "plan made", "machine", question.UUID, "mac", question.MAC, "why", plan.Why)
	s.Site.Saw(question, plan, e.Boot)
	e.Name, e.Detail, e.Code = plan.Image.Name, string(plan.Action)+": "+plan.Reason, plan.Code
	return s.answerPlan(w, req, &e, plan)
}

// prepare makes sure that all a booting machine will ask for can be had, and
// turns the plan into one to wait when it cannot.
func (s *Server) prepare(req *http.Request, plan boot.Plan, bootID string, id pki.Identity, e *boot.Event) boot.Plan {
	if plan.Action != boot.ActBoot {
		return plan
	}
	if _, err := s.Site.Base(); err != nil {
		e.Error = err.Error()
		return plan.NotReady("its Ignition config cannot be made just now")
	}
	// Without the request's end: a machine that hangs up now asks again, and must
	// not find its boot half opened.
	if err := s.Grants.Open(context.WithoutCancel(req.Context()), bootID, plan.Machine.UUID, plan.Machine.Name, id.Fingerprint); err != nil {
		e.Error = err.Error()
		return plan.NotReady("its grant cannot be made just now")
	}
	return plan
}

func (s *Server) answerPlan(w http.ResponseWriter, req *http.Request, e *boot.Event, plan boot.Plan) error {
	body, err := plan.Script(boot.Endpoint{Base: s.Names.IPXEURL, Boot: e.Boot})
	if err != nil {
		return fmt.Errorf("render script: %w", err)
	}
	e.Bytes = int64(len(body))
	return answerBytes(w, req, "text/plain; charset=utf-8", body)
}

// image answers GET /ipxe/images/<image>/<file>.
func (s *Server) image(w http.ResponseWriter, req *http.Request, rest string) (err error) {
	start := s.Now()
	e := boot.Event{}
	stage := boot.StageInitrd
	defer func() { s.finish(&e, stage, req, start, err) }()
	if err := only(req, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	if _, err := s.identify(req); err != nil {
		return err
	}
	name, file, _ := strings.Cut(rest, "/")
	f, ok := s.Site.Image(name, file)
	if !ok {
		return refuse(http.StatusNotFound, "no-such-image", fmt.Errorf("no image file %.120q", rest))
	}
	e.Name = name + "/" + file
	if f.Kernel {
		stage = boot.StageKernel
	}
	r, err := f.Open()
	if err != nil {
		return unavailable("image-unreadable", err)
	}
	e.Bytes, err = serveContent(w, req, f.SHA256, f.Modified, r)
	return err
}

// machineInitrd answers GET /ipxe/initrd/<boot>: the initrd that carries this
// machine's grant. The grant is minted here and kept nowhere in clear, so the
// bytes differ at each request and Range makes no sense.
func (s *Server) machineInitrd(w http.ResponseWriter, req *http.Request, bootID string) (err error) {
	start := s.Now()
	e := boot.Event{}
	defer func() { s.finish(&e, boot.StageConfig, req, start, err) }()
	if err := only(req, http.MethodGet); err != nil {
		return err
	}
	id, err := s.identify(req)
	if err != nil {
		return err
	}
	grant, machine, err := s.Grants.Mint(req.Context(), bootID, id.Fingerprint)
	if err != nil {
		return grantRefusal(err)
	}
	e.Boot, e.Machine = bootID, machine // not before: anybody can make up an id
	body, err := s.renderInitrd(grant)
	if err != nil {
		return err
	}
	e.Bytes = int64(len(body))
	return answerBytes(w, req, "application/octet-stream", body)
}

func (s *Server) renderInitrd(grant pki.Token) ([]byte, error) {
	pointer, err := ignition.Pointer(s.Names.BootURL+"/ipxe/ignition", grant.Encode(), s.rootPEM())
	if err != nil {
		return nil, fmt.Errorf("render pointer config: %w", err)
	}
	body, err := ignition.Initrd(pointer)
	if err != nil {
		return nil, fmt.Errorf("render initrd: %w", err)
	}
	return body, nil
}

// finish records how a request ended.
func (s *Server) finish(e *boot.Event, stage boot.Stage, req *http.Request, start time.Time, err error) {
	e.Stage, e.Addr, e.Duration = stage, clientAddr(req), s.Now().Sub(start)
	if err != nil {
		r := asRefusal(err)
		e.Code, e.Error = r.code, r.Error()
	}
	s.Site.Record(*e)
}
