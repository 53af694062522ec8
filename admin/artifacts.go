package admin

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nestboot/nestboot/artifact"
)

// artifactView is a set as clients see it: the reference API's fields, and ours
// beside them.
type artifactView struct {
	ID     int64  `json:"id"`
	Status string `json:"status"`
	artifact.Spec
	ISO      *string `json:"download_url_iso"` // null where the set has no such file, or none of it leaves over HTTPS
	PXE      *string `json:"download_url_pxe"`
	EFIAMD64 *string `json:"download_url_efi_amd64"`
	EFIARM64 *string `json:"download_url_efi_arm64"`
	RawAMD64 *string `json:"download_url_raw_amd64"`

	Consequence string                `json:"exposure_means"`
	Generation  int                   `json:"generation"` // of the trust root that its machines have
	CreatedAt   time.Time             `json:"created_at"`
	Certificate *artifact.Certificate `json:"certificate"` // null for a keyless set
	Files       []fileView            `json:"files"`
	Missing     []string              `json:"missing"` // what the set lacks, each with the reason
	LastUsed    *time.Time            `json:"last_used"`
	UsedBy      []artifact.Use        `json:"used_by"` // the latest first, 100 at most
	Reason      string                `json:"status_reason,omitempty"`
}

// fileView is one file of a set.
type fileView struct {
	Name     string  `json:"name"` // as DHCP and firmware ask for it
	Format   string  `json:"format"`
	HoldsKey bool    `json:"holds_key"`
	URL      *string `json:"url"` // null where it does not leave over HTTPS
}

// maxShown is how many machines of a set are shown.
const maxShown = 100

func (a *API) view(i artifact.Info) artifactView {
	v := artifactView{
		ID: i.ID, Status: string(i.Status), Spec: i.Spec, Consequence: i.Spec.Consequence(), Generation: i.Generation, CreatedAt: i.Created,
		Certificate: i.Certificate, Files: []fileView{}, Missing: append([]string{}, i.Missing...),
		UsedBy: append([]artifact.Use{}, i.Uses[:min(len(i.Uses), maxShown)]...), Reason: i.Fault,
	}
	v.Machines = append([]string{}, v.Machines...)
	for _, u := range slices.Concat(i.Uses[:min(len(i.Uses), 1)], i.Others) {
		if v.LastUsed == nil || u.At.After(*v.LastUsed) {
			v.LastUsed = &u.At
		}
	}
	downloads := map[string]**string{"iso": &v.ISO, "pxe": &v.PXE, "efi_amd64": &v.EFIAMD64, "efi_arm64": &v.EFIARM64, "raw_amd64": &v.RawAMD64}
	for _, f := range i.Files {
		file := fileView{Name: f.Name, Format: string(f.Format), HoldsKey: f.HoldsKey}
		if i.Spec.Keyless || slices.Contains(i.Spec.Exposure, artifact.HTTPS) {
			url := a.BootURL + "/artifacts/" + i.Token.Encode() + "/" + f.Name
			file.URL = &url
		}
		if to, ok := downloads[file.Format]; ok {
			*to = file.URL
		}
		v.Files = append(v.Files, file)
	}
	return v
}

// artifacts answers ipxe_boot_artifacts and what is below it.
func (a *API) artifacts(w http.ResponseWriter, req *http.Request, path []string) error {
	if len(path) == 0 {
		switch req.Method {
		case http.MethodGet:
			return a.listArtifacts(w)
		case http.MethodPost:
			return a.createArtifact(w, req)
		}
		return notAllowed("GET and POST")
	}
	id, err := strconv.ParseInt(path[0], 10, 64)
	if err != nil {
		return noArtifact(path[0])
	}
	switch {
	case len(path) > 2 && path[1] == "files" && req.Method == http.MethodGet:
		return a.artifactFile(w, req, id, strings.Join(path[2:], "/"))
	case len(path) > 1 && path[1] == "uefi_http_boot_urls", len(path) == 2 && path[1] == "renew", len(path) == 1:
	default:
		return notFound(req.URL.Path)
	}
	info, ok := a.Artifacts.Get(id)
	switch {
	case !ok:
		return noArtifact(path[0])
	case len(path) > 1 && path[1] == "uefi_http_boot_urls":
		return a.uefiURLs(w, req, id, path[2:])
	case len(path) > 1 && req.Method == http.MethodPost:
		return a.renewArtifact(w, req, id)
	case len(path) > 1:
		return notAllowed("POST")
	case req.Method == http.MethodGet:
		return answer(w, map[string]any{"ipxe_boot_artifact": a.view(info)})
	case req.Method == http.MethodPut:
		return a.updateArtifact(w, req, id)
	case req.Method == http.MethodPatch:
		return a.patchArtifact(w, req, id)
	case req.Method == http.MethodDelete:
		return a.deleteArtifact(w, req, id)
	}
	return notAllowed("GET, PUT, PATCH and DELETE")
}

func noArtifact(id string) error {
	return &apiError{Status: http.StatusNotFound, Message: fmt.Sprintf("artifact set %.60q does not exist", id), Code: "not_found"}
}

func (a *API) listArtifacts(w http.ResponseWriter) error {
	list := []artifactView{}
	for _, i := range a.Artifacts.List() {
		list = append(list, a.view(i))
	}
	return answer(w, map[string]any{"ipxe_boot_artifacts": list})
}

func (a *API) createArtifact(w http.ResponseWriter, req *http.Request) error {
	body, err := readBody(w, req)
	if err != nil {
		return err
	}
	var spec artifact.Spec
	if err := decodeFields(body, &spec); err != nil {
		return err
	}
	info, err := a.Artifacts.Create(req.Context(), spec)
	if err != nil {
		return err
	}
	return write(w, http.StatusCreated, map[string]any{
		"ipxe_boot_artifact": a.view(info), "operation": operation{createOperation(info.ID), "succeeded", "create"},
	})
}

// updateArtifact sets the exposure. Clients send the whole object as they got
// it, so what only we can change is passed over, and every other field must be
// as it was.
func (a *API) updateArtifact(w http.ResponseWriter, req *http.Request, id int64) error {
	body, err := readBody(w, req)
	if err != nil {
		return err
	}
	var given artifactView
	if err := decodeFields(body, &given); err != nil {
		return err
	}
	return a.expose(w, req, id, func(now artifact.Spec) ([]artifact.Protocol, error) {
		if err := unchanged(body, given.Spec, now, "exposure"); err != nil || given.Exposure == nil {
			return now.Exposure, err
		}
		return given.Exposure, nil
	})
}

// patch is the body of PATCH: protocols to serve a set over, too or no longer.
type patch struct {
	Serve    []artifact.Protocol `json:"serve"`
	Withdraw []artifact.Protocol `json:"withdraw"`
}

// patchArtifact adds to the exposure and takes away from it, whatever it is by
// now: of two operators at once, none undoes what the other withdraws.
func (a *API) patchArtifact(w http.ResponseWriter, req *http.Request, id int64) error {
	body, err := readBody(w, req)
	if err != nil {
		return err
	}
	var p patch
	if err := decodeFields(body, &p); err != nil {
		return err
	}
	for _, list := range [][]artifact.Protocol{p.Serve, p.Withdraw} {
		for _, protocol := range list {
			if !slices.Contains(artifact.Protocols(), protocol) {
				return &artifact.Invalid{Faults: []artifact.Fault{{
					Field: "exposure", Code: artifact.CodeInvalid, Message: fmt.Sprintf("%.40q is none of https, http, tftp", protocol),
				}}}
			}
		}
	}
	return a.expose(w, req, id, func(now artifact.Spec) ([]artifact.Protocol, error) {
		next := []artifact.Protocol{}
		for _, protocol := range artifact.Protocols() {
			if slices.Contains(slices.Concat(now.Exposure, p.Serve), protocol) && !slices.Contains(p.Withdraw, protocol) {
				next = append(next, protocol)
			}
		}
		return next, nil
	})
}

// expose changes the exposure of a set from what it is to what next makes of
// it, one request after the other.
func (a *API) expose(w http.ResponseWriter, req *http.Request, id int64, next func(now artifact.Spec) ([]artifact.Protocol, error)) error {
	a.exposing.Lock()
	defer a.exposing.Unlock()
	info, ok := a.Artifacts.Get(id)
	if !ok {
		return artifact.ErrUnknown
	}
	exposure, err := next(info.Spec)
	if err != nil {
		return err
	}
	if !slices.Equal(exposure, info.Spec.Exposure) {
		if info, err = a.Artifacts.Update(req.Context(), id, exposure); err != nil {
			return err
		}
	}
	return answer(w, map[string]any{"ipxe_boot_artifact": a.view(info)})
}

// renewArtifact gives a set a certificate of the newest trust root.
func (a *API) renewArtifact(w http.ResponseWriter, req *http.Request, id int64) error {
	info, err := a.Artifacts.Renew(req.Context(), id)
	if err != nil {
		return err
	}
	return answer(w, map[string]any{
		"ipxe_boot_artifact": a.view(info), "operation": operation{createOperation(id), "succeeded", "renew"},
	})
}

// deleteArtifact ends a set and the URLs that serve it. Each of the two holds at
// once, also when it cannot be written down.
func (a *API) deleteArtifact(w http.ResponseWriter, req *http.Request, id int64) error {
	if _, known := a.Artifacts.Get(id); !known {
		return artifact.ErrUnknown
	}
	var revoked error
	var urls sync.WaitGroup
	urls.Go(func() { revoked = a.Links.RevokeSet(req.Context(), id) })
	info, err := a.Artifacts.Delete(req.Context(), id)
	urls.Wait()
	if err := errors.Join(err, revoked); err != nil {
		return err
	}
	return answer(w, map[string]any{
		"ipxe_boot_artifact": a.view(info), "operation": operation{deleteOperation(id), "succeeded", "delete"},
	})
}

// artifactFile sends a file of a set to the local administrator, whatever its
// exposure.
func (a *API) artifactFile(w http.ResponseWriter, req *http.Request, id int64, name string) error {
	f, err := a.Artifacts.Render(req.Context(), id, name)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", `"`+f.SHA256+`"`)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(f.Data))
	return nil
}

// baseView is one package or folder of binaries.
type baseView struct {
	Package  string       `json:"package"`
	Version  string       `json:"version"`
	File     string       `json:"file"`
	SHA256   string       `json:"sha256,omitempty"`
	License  string       `json:"license"`
	Source   string       `json:"source"`
	Binaries []binaryView `json:"binaries"`
}

type binaryView struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	Arch   string `json:"arch,omitempty"`
	SHA256 string `json:"sha256"`
}

// versionView is a version of iPXE that a set can be made of.
type versionView struct {
	Version string   `json:"version"`
	UsedBy  []string `json:"used_by"` // names of sets
}

// bases answers what sets can be made of.
func (a *API) bases(w http.ResponseWriter) error {
	bundles, versions := a.Artifacts.Bases()
	bases, known := []baseView{}, []versionView{}
	for _, b := range bundles {
		o := b.Origin
		v := baseView{o.Package, o.Version, o.File, o.SHA256, o.License, o.Source, []binaryView{}}
		for _, x := range b.Bases {
			v.Binaries = append(v.Binaries, binaryView{x.Name, string(x.Kind), string(x.Arch), fmt.Sprintf("%x", x.SHA256)})
		}
		bases = append(bases, v)
	}
	sets := a.Artifacts.List()
	slices.SortFunc(sets, func(x, y artifact.Info) int { return cmp.Compare(x.Spec.Name, y.Spec.Name) })
	for _, version := range versions {
		v := versionView{version, []string{}}
		for _, s := range sets {
			if s.Spec.Base == version {
				v.UsedBy = append(v.UsedBy, s.Spec.Name)
			}
		}
		known = append(known, v)
	}
	return answer(w, map[string]any{"bases": bases, "versions": known})
}
