package admin

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/nestboot/nestboot/artifact"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/links"
)

// identityView is whom a credential speaks for, as clients see it.
type identityView struct {
	Kind        pki.Kind   `json:"kind"`
	ID          int64      `json:"id"`
	Name        string     `json:"name"`
	Set         string     `json:"set"`
	Subject     string     `json:"subject"`
	Machines    []string   `json:"machines"`
	Fingerprint pki.Digest `json:"fingerprint"`
	Serial      string     `json:"serial"`
	NotAfter    *time.Time `json:"not_after"`
}

func newIdentityView(id pki.Identity) *identityView {
	return &identityView{
		Kind: id.Kind, ID: id.ID, Name: id.Name, Set: id.Set, Subject: id.Subject, Machines: append([]string{}, id.Machines...),
		Fingerprint: id.Fingerprint, Serial: id.Serial, NotAfter: orNull(id.NotAfter),
	}
}

// explanation is the answer to auth/explain.
type explanation struct {
	Identity *identityView `json:"identity"` // null: refused
	// Code and Reason are of the refusal that is answered, which need not be that
	// of the last step; empty: none is.
	Code   string     `json:"code,omitempty"`
	Reason string     `json:"reason,omitempty"`
	Steps  []pki.Step `json:"steps"`
}

// explain answers auth/explain: what a client that shows a certificate or a
// token would be answered now, and why. The answer does not hold the token.
func (a *API) explain(w http.ResponseWriter, req *http.Request, path []string) error {
	switch {
	case len(path) != 1 || path[0] != "explain":
		return notFound(req.URL.Path)
	case req.Method != http.MethodPost:
		return notAllowed("POST")
	}
	body, err := readBody(w, req)
	if err != nil {
		return err
	}
	var in struct {
		Certificate string `json:"certificate"`
		Token       string `json:"token"`
		Over        string `json:"over"` // "https" or "http"; empty: whichever the token is good over
	}
	if err := decodeFields(body, &in); err != nil {
		return err
	}
	switch {
	case (in.Certificate == "") == (in.Token == ""):
		return invalid("certificate", "want either a certificate or a token")
	case in.Token != "":
		return answer(w, a.explainToken(in.Token, in.Over, a.Now()))
	}
	chain, err := readChain(in.Certificate)
	if err != nil {
		return err
	}
	return answer(w, a.explainChain(chain, a.Now()))
}

func (a *API) explainChain(chain []*x509.Certificate, at time.Time) explanation {
	e := explanation{Steps: append([]pki.Step{}, a.Explain(chain, at)...)}
	id, err := a.Identify(chain, at)
	var r *pki.Refusal
	switch {
	case err == nil:
		e.Identity = newIdentityView(id)
	case errors.As(err, &r):
		e.Code, e.Reason = r.Code, r.Reason
	}
	return e
}

func (a *API) explainToken(token, over string, at time.Time) explanation {
	e := explanation{Steps: append([]pki.Step{}, a.Links.Explain(token, at)...)}
	for _, kind := range []pki.Kind{links.Chain, links.UEFI} {
		for _, protocol := range []string{links.HTTPS, links.HTTP} { // it is good over one of them, or not at all
			if over != "" && over != protocol {
				continue
			}
			id, link, err := a.Links.Find(kind, token, protocol, at)
			var r *pki.Refusal
			switch {
			case err == nil && a.refuseSet(&e, link):
				return e
			case err == nil:
				e.Identity = newIdentityView(id)
				return e
			case over != "" && errors.As(err, &r) && r.Code == pki.CodeNotAllowed:
				e.Steps = append(e.Steps, pki.Step{Rule: "protocol", Code: r.Code, Reason: r.Reason})
			}
		}
	}
	if len(e.Steps) > 0 {
		last := e.Steps[len(e.Steps)-1]
		e.Code, e.Reason = last.Code, last.Reason
	}
	secret, err := pki.ParseSecret(token)
	if err != nil {
		return e
	}
	for _, i := range a.Artifacts.List() {
		if i.Token.Equal(secret) {
			a.explainDownload(&e, i)
		}
	}
	return e
}

// kindDownload is what opens the files of a set and proves nothing else.
const kindDownload pki.Kind = "download"

// explainDownload says what the token in a set's download addresses opens.
func (a *API) explainDownload(e *explanation, i artifact.Info) {
	step := pki.Step{
		Rule:   "download address",
		Reason: "it is in the download addresses of set " + i.Spec.Name + ", which open its files and prove nothing else",
	}
	if !i.Spec.Keyless && !slices.Contains(i.Spec.Exposure, artifact.HTTPS) {
		step.Code = artifact.CodeNotExposed
		step.Reason += "; it is not served over https just now"
	}
	e.Steps = append(e.Steps, step)
	e.Code, e.Reason = step.Code, step.Reason
	if step.Code != "" || a.refuseSet(e, links.Link{Spec: links.Spec{Set: i.ID}}) {
		return
	}
	e.Code, e.Reason = "", ""
	e.Identity = &identityView{Kind: kindDownload, ID: i.ID, Name: i.Spec.Name, Set: i.Spec.Name, Machines: []string{}}
}

// refuseSet adds why a URL opens no file of its set just now, if that is so.
func (a *API) refuseSet(e *explanation, link links.Link) bool {
	if link.Set == 0 {
		return false
	}
	set, ok := a.Artifacts.Get(link.Set)
	switch {
	case !ok || set.Status == artifact.Deleting:
		e.Code, e.Reason = pki.CodeRevoked, "its set was deleted"
	case set.Status == artifact.Expired:
		e.Code, e.Reason = artifact.CodeExpired, "set "+set.Spec.Name+" has expired"
	case set.Status == artifact.Failed:
		e.Code, e.Reason = artifact.CodeFault, "set "+set.Spec.Name+" cannot be assembled: nestctl artifact show "+set.Spec.Name
	default:
		return false
	}
	e.Steps = append(e.Steps, pki.Step{Rule: "set", Code: e.Code, Reason: e.Reason})
	return true
}

// maxChain is how many certificates a client may show.
const maxChain = 16

// readChain reads the certificates of a PEM text. What is wrong with it is not
// quoted: it may be a private key.
func readChain(text string) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, invalid("certificate", "it holds something else than certificates: give those alone")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, invalid("certificate", "certificate %d is damaged: %.200s", len(chain)+1, err)
		}
		if chain = append(chain, c); len(chain) > maxChain {
			return nil, invalid("certificate", "there are more than %d", maxChain)
		}
	}
	if len(chain) == 0 {
		return nil, invalid("certificate", "it is no certificate in PEM")
	}
	return chain, nil
}
