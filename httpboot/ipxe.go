package httpboot

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/ignition"
	"github.com/nestboot/nestboot/pki"
)

// ipxe answers the names that request client certificates: the boot script,
// images, and the machine's own initrd, all over one connection of iPXE's.
func (s *Server) ipxe(w http.ResponseWriter, req *http.Request, host Host) error {
	rest, ok := strings.CutPrefix(req.URL.Path, "/ipxe/")
	if !ok {
		return refuse(http.StatusNotFound, "not-found", nil)
	}
	return s.boot(w, req, rest, s.byCertificate(req, host))
}

// boot answers what a machine asks for below /ipxe/, whichever way it proves
// who it is.
func (s *Server) boot(w http.ResponseWriter, req *http.Request, path string, by way) error {
	if path == "boot" {
		return s.script(w, req, by)
	}
	if rest, ok := strings.CutPrefix(path, "images/"); ok {
		return s.image(w, req, rest, by)
	}
	if id, ok := strings.CutPrefix(path, "initrd/"); ok {
		return s.machineInitrd(w, req, id, by)
	}
	return refuse(http.StatusNotFound, "not-found", nil)
}

// script answers GET /ipxe/boot: what this machine is to do now.
func (s *Server) script(w http.ResponseWriter, req *http.Request, by way) (err error) {
	start := s.Now()
	e := boot.Event{}
	defer func() { s.finish(&e, boot.StageScript, req, start, err) }()
	if err := only(req, http.MethodGet); err != nil {
		return err
	}
	id, err := s.identify(req, by, &e)
	if err != nil {
		return err
	}
	question, err := boot.ParseRequest(req.URL.Query())
	if err != nil {
		// The caller is one of ours, so it is told on its console.
		e.Code, e.Error = "bad-request", err.Error()
		return s.answerPlan(w, req, &e, boot.Refusal("bad-request", err.Error()), by)
	}
	question.Addr = clientAddr(req)
	question.Credential = credentialOf(id, by.generation)
	if err := s.Site.Member(id, question.UUID); err != nil {
		e.Name, e.MAC, e.Detail = id.Name, question.MAC, "asked as machine "+question.UUID // whose boot this is not
		return refuse(http.StatusForbidden, notMember(id), err)
	}
	connOf(req).actFor(question.UUID)
	plan := s.admitBoot(boot.Decide(question, s.Site.Inventory()))
	e.Boot = s.Site.Begin(question)
	e.Machine, e.MAC = question.UUID, question.MAC
	if plan = s.prepare(req, plan, e.Boot, id, &e); plan.Action != boot.ActBoot {
		s.admission.end(question.UUID)
	}
	s.Log.DebugContext(req.Context(), "plan made", "machine", question.UUID, "mac", question.MAC, "why", plan.Why)
	s.Site.Saw(question, plan, e.Boot)
	e.Name, e.Detail, e.Code = plan.Image.Name, string(plan.Action)+": "+plan.Reason, plan.Code
	return s.answerPlan(w, req, &e, plan, by)
}

// notMember is the code for a machine that id may not boot.
func notMember(id pki.Identity) string {
	if id.Kind == pki.KindSet {
		return CodeMachineNotInSet
	}
	return CodeMachineNotAllowed
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
	if err := s.Grants.OpenFor(context.WithoutCancel(req.Context()), bootID, plan.Machine.UUID, plan.Machine.Name, id); err != nil {
		e.Error = err.Error()
		return plan.NotReady("its grant cannot be made just now")
	}
	return plan
}

func (s *Server) answerPlan(w http.ResponseWriter, req *http.Request, e *boot.Event, plan boot.Plan, by way) error {
	body, err := plan.Script(boot.Endpoint{Base: by.base, Boot: e.Boot})
	if err != nil {
		return fmt.Errorf("render script: %w", err)
	}
	e.Bytes = int64(len(body))
	return answerBytes(w, req, "text/plain; charset=utf-8", body)
}

// image answers GET /ipxe/images/<image>/<file>.
func (s *Server) image(w http.ResponseWriter, req *http.Request, rest string, by way) (err error) {
	start := s.Now()
	e := boot.Event{}
	stage := boot.StageInitrd
	defer func() { s.finish(&e, stage, req, start, err) }()
	if err := only(req, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	if _, err := s.identify(req, by, &e); err != nil {
		return err
	}
	name, file, _ := strings.Cut(rest, "/")
	f, ok := s.Site.Image(name, file)
	if !ok {
		return refuse(http.StatusNotFound, "no-such-image", fmt.Errorf("no image file %s", boot.Excerpt(rest, 120)))
	}
	e.Name = name + "/" + file
	if f.Kernel {
		stage = boot.StageKernel
	}
	ended := s.admission.fetches(connOf(req).actsFor(), s.Now())
	defer func() { ended(err != nil, s.Now()) }() // who failed asks for a new script
	r, err := f.Open()
	if err != nil {
		return unavailable("image-unreadable", err)
	}
	e.Bytes, err = s.serveContent(w, req, f.SHA256, f.Modified, r)
	return err
}

// machineInitrd answers GET /ipxe/initrd/<boot>: the initrd that carries this
// machine's grant. The grant is minted here and kept nowhere in clear, so the
// bytes differ at each request and Range makes no sense.
func (s *Server) machineInitrd(w http.ResponseWriter, req *http.Request, bootID string, by way) (err error) {
	start := s.Now()
	e := boot.Event{}
	defer func() { s.finish(&e, boot.StageConfig, req, start, err) }()
	if err := only(req, http.MethodGet); err != nil {
		return err
	}
	id, err := s.identify(req, by, &e)
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
	s.admission.end(machine) // it is the last file
	return answerBytes(w, req, "application/octet-stream", body)
}

func (s *Server) renderInitrd(grant pki.Token) ([]byte, error) {
	pointer, err := ignition.Pointer(s.bootURL()+"/ipxe/ignition", grant.Encode(), s.rootPEM())
	if err != nil {
		return nil, fmt.Errorf("render pointer config: %w", err)
	}
	body, err := ignition.Initrd(pointer)
	if err != nil {
		return nil, fmt.Errorf("render initrd: %w", err)
	}
	return body, nil
}

// finish records how a request ended, unless a lockout's summary will tell.
func (s *Server) finish(e *boot.Event, stage boot.Stage, req *http.Request, start time.Time, err error) {
	if counted(err) {
		return
	}
	e.Stage, e.Addr, e.Duration = stage, clientAddr(req), s.Now().Sub(start)
	if err != nil {
		r := asRefusal(err)
		e.Code, e.Error = r.code, r.Error()
	}
	s.Site.Record(*e)
}
