package admin

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/nestboot/nestboot/artifact"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/serving"
)

// generationView is a trust root as clients see it.
type generationView struct {
	Number       int             `json:"number"`
	Host         string          `json:"host"` // where machines of its sets ask
	URL          string          `json:"url"`
	Source       string          `json:"source"` // own, imported or step-ca
	Newest       bool            `json:"newest"`
	CreatedAt    time.Time       `json:"created_at"`
	Trust        certView        `json:"trust"` // what machines of its sets trust: the root, or that of given server certificates
	Root         certView        `json:"root"`
	Intermediate certView        `json:"intermediate"`
	Retired      []certView      `json:"retired"`
	Sets         []dependentView `json:"sets"`    // that need it
	Trusted      []dependentView `json:"trusted"` // registered authorities and pins whose machines ask its host name
}

// dependentView is a set, or a registered authority or pin, whose machines need
// a generation.
type dependentView struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
	// Why is empty for a set of the generation itself; else it tells which
	// machines still come by media that are.
	Why string `json:"why"`
}

func newCertView(c *x509.Certificate) certView {
	if c == nil { // of a dropped generation whose files are lost
		return certView{}
	}
	return certView{c.Subject.String(), c.Issuer.String(), pki.SerialOf(c), sha256.Sum256(c.Raw), c.NotBefore, c.NotAfter}
}

func (a *API) generationView(g pki.Generation) generationView {
	v := generationView{
		Number: g.Number, Host: g.Host, URL: a.IPXEURL(g.Host), Source: g.Source, Newest: g.Newest, CreatedAt: g.Created,
		Trust: newCertView(g.Root), Root: newCertView(g.Root), Intermediate: newCertView(g.Intermediate), Retired: []certView{},
		Sets: a.depending(g.Number), Trusted: a.dependingTrusted(g.Number),
	}
	if root := a.Authority.Trust(g.Number); root != nil {
		v.Trust = newCertView(root)
	}
	for _, c := range g.Retired {
		v.Retired = append(v.Retired, newCertView(c))
	}
	return v
}

// depending are the sets whose machines need a generation.
func (a *API) depending(number int) []dependentView {
	list := []dependentView{}
	for _, i := range a.Artifacts.Depending(number) {
		v := dependentView{ID: i.ID, Name: i.Spec.Name}
		if i.Generation != number {
			v.Why = "media: " + strings.Join(usersOf(i.Uses, i.Others, number), ", ")
		}
		list = append(list, v)
	}
	return list
}

// dependingTrusted are the registered authorities and pins whose machines came by
// a generation last. Their boot files were made elsewhere, and nobody but these
// machines knows which root they carry.
func (a *API) dependingTrusted(number int) []dependentView {
	list := []dependentView{}
	for _, e := range a.Trusted.List() {
		seen := map[string]bool{}
		var last, others []artifact.Use
		for _, u := range e.UsedBy {
			if !seen[u.Machine] { // with another certificate it came before that
				last = append(last, artifact.Use{Machine: u.Machine, At: u.At, Generation: u.Generation})
			}
			seen[u.Machine] = true
		}
		for _, u := range e.Others {
			others = append(others, artifact.Use{At: u.At, Generation: u.Generation})
		}
		if users := usersOf(last, others, number); len(users) > 0 {
			list = append(list, dependentView{ID: e.ID, Name: e.Name, Why: "machines: " + strings.Join(users, ", ")})
		}
	}
	return list
}

// maxNamed is how many machines are named at once.
const maxNamed = 3

// usersOf are the machines that came by a generation last, of those that are
// remembered and of others.
func usersOf(uses, others []artifact.Use, number int) []string {
	var machines []string
	more := 0
	for _, u := range uses {
		if u.Generation != number {
			continue
		}
		if len(machines) == maxNamed {
			more++
			continue
		}
		machines = append(machines, u.Machine)
	}
	if more > 0 {
		machines = append(machines, fmt.Sprintf("and %d more", more))
	}
	for _, u := range others {
		if u.Generation == number {
			machines = append(machines, "and others that are not remembered, until "+u.At.UTC().Format(time.DateOnly))
		}
	}
	return machines
}

// authority answers authority and what is below it.
func (a *API) authority(w http.ResponseWriter, req *http.Request, path []string) error {
	part := strings.Join(path[:min(len(path), 1)], "")
	method := map[string]string{
		"": http.MethodGet, "export": http.MethodGet, "rotate": http.MethodPost, "generations": http.MethodDelete,
	}[part]
	switch {
	case method == "" || len(path) > 2 || (len(path) == 2) != (part == "generations"):
		return notFound(req.URL.Path)
	case req.Method != method:
		return notAllowed(method)
	}
	switch part {
	case "export":
		return a.exportRoots(w, req)
	case "rotate":
		return a.rotate(w, req)
	case "generations":
		return a.dropGeneration(w, req, path[1])
	}
	return a.showAuthority(w)
}

func (a *API) showAuthority(w http.ResponseWriter) error {
	generations := []generationView{}
	for _, g := range a.Authority.Generations() {
		generations = append(generations, a.generationView(g))
	}
	servers := append([]serving.Status{}, a.Servers()...)
	for i := range servers {
		servers[i].Warnings = append([]string{}, servers[i].Warnings...)
	}
	return answer(w, map[string]any{"authority": map[string]any{"generations": generations, "server_certificates": servers}})
}

func (a *API) rotate(w http.ResponseWriter, req *http.Request) error {
	body, err := readBody(w, req)
	if err != nil {
		return err
	}
	var in struct {
		Root bool `json:"root"`
	}
	if err := decodeFields(body, &in); err != nil {
		return err
	}
	change := a.Authority.Rotate
	if in.Root {
		change = a.Authority.RotateRoot
	}
	g, err := change(req.Context())
	if err != nil {
		return a.cannot(req, "cannot_rotate", err)
	}
	return answer(w, map[string]any{"generation": a.generationView(g)})
}

// cannot tells a client why the authority refuses; the log has it too.
func (a *API) cannot(req *http.Request, code string, err error) error {
	if asAPIError(err) != nil {
		return err
	}
	a.Log.ErrorContext(req.Context(), "authority was not changed", "err", err)
	return &apiError{Status: http.StatusConflict, Message: err.Error(), Code: code}
}

// dropGeneration ends a generation, unless a set depends on it or ?force is
// given. One that was dropped before is dropped again: that may not have been
// written down.
func (a *API) dropGeneration(w http.ResponseWriter, req *http.Request, text string) error {
	number, err := strconv.Atoi(text)
	g, known := a.Authority.Generation(number)
	if err != nil || !known {
		return noGeneration(text)
	}
	view := a.generationView(g)
	force, _ := strconv.ParseBool(req.URL.Query().Get("force")) // anything else is no force
	if !force && !view.Newest && !g.Dropped {
		if err := stillNeeded(view); err != nil {
			return err
		}
	}
	if err := a.Authority.Drop(req.Context(), number); err != nil {
		return a.cannot(req, "cannot_drop", err)
	}
	return answer(w, map[string]any{"generation": view})
}

// stillNeeded says who depends on a generation, if somebody does.
func stillNeeded(v generationView) error {
	names := func(list []dependentView) string {
		var all []string
		for _, d := range list {
			all = append(all, d.Name)
		}
		return strings.Join(all, ", ")
	}
	text := fmt.Sprintf("generation %d is still needed.", v.Number)
	if len(v.Sets) > 0 {
		text += " Machines of these sets trust it alone: " + names(v.Sets) + ": renew them (nestctl artifact renew --all) and write media anew."
	}
	if len(v.Trusted) > 0 {
		text += " Machines of these registered certificates came by it last: " + names(v.Trusted) +
			": make their boot files anew with the new root and address (nestctl artifact build)."
	}
	if len(v.Sets)+len(v.Trusted) == 0 {
		return nil
	}
	return &apiError{
		Status: http.StatusConflict, Code: "sets_depend",
		Message: text + " Drop it when nestctl ca status names none; --force drops it all the same",
	}
}

func noGeneration(text string) error {
	return &apiError{Status: http.StatusNotFound, Message: fmt.Sprintf("generation %.20q does not exist: nestctl ca status", text), Code: "not_found"}
}

// issuedView is a certificate of a set as clients see it.
type issuedView struct {
	Serial      string     `json:"serial"`
	Set         string     `json:"set"`
	State       string     `json:"state"`
	IssuedAt    time.Time  `json:"issued_at"`
	NotAfter    time.Time  `json:"not_after"`
	Fingerprint pki.Digest `json:"fingerprint"`
	Generation  int        `json:"generation"`
}

// certificates answers certificates and certificates/{serial}.
func (a *API) certificates(w http.ResponseWriter, req *http.Request, path []string) error {
	switch {
	case len(path) > 1:
		return notFound(req.URL.Path)
	case len(path) == 0 && req.Method != http.MethodGet:
		return notAllowed("GET")
	case len(path) == 1 && req.Method != http.MethodDelete:
		return notAllowed("DELETE")
	}
	serial := ""
	if len(path) == 1 {
		serial = pki.ParseSerial(path[0])
		err := a.Authority.Revoke(req.Context(), serial)
		if errors.Is(err, pki.ErrUnknownCertificate) {
			return &apiError{Status: http.StatusNotFound, Message: fmt.Sprintf("certificate %.60q does not exist: nestctl cert list", path[0]), Code: "not_found"}
		}
		if err != nil {
			return err
		}
	}
	list := []issuedView{}
	for _, i := range a.Authority.Issued() {
		v := issuedView{i.Serial, i.Set, i.State, i.Issued, i.NotAfter, i.Fingerprint, i.Generation}
		if i.Serial == serial {
			return answer(w, map[string]any{"certificate": v})
		}
		list = append(list, v)
	}
	return answer(w, map[string]any{"certificates": list})
}
