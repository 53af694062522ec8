package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/nestboot/nestboot/images/depot"
	"github.com/nestboot/nestboot/images/pull"
	"github.com/nestboot/nestboot/images/release"
)

// imageView is a release as clients see it.
type imageView struct {
	ID string `json:"id"` // system:channel:version:arch
	depot.Info
	Size int64 `json:"size"` // bytes
}

func viewImage(i depot.Info) imageView {
	return imageView{ID: i.ID(), Info: i, Size: i.Manifest.Size()}
}

// images answers images and what is below it.
func (a *API) images(w http.ResponseWriter, req *http.Request, path []string) error {
	switch {
	case len(path) == 0 && req.Method == http.MethodGet:
		return a.listImages(w)
	case len(path) == 0 && req.Method == http.MethodPost:
		return a.pullImage(w, req)
	case len(path) == 0:
		return notAllowed("GET and POST")
	case len(path) == 1 && path[0] == "collect":
		return a.collectImages(w, req)
	case len(path) == 1 && path[0] == "export":
		return a.exportImages(w, req)
	case len(path) == 1 && path[0] == "import":
		return a.importImages(w, req)
	case len(path) > 2 || len(path) == 2 && path[1] != "verify":
		return notFound(req.URL.Path)
	}
	r, err := release.ParseRef(path[0], "")
	if err != nil {
		return &apiError{Status: http.StatusNotFound, Message: err.Error(), Code: "not_found"}
	}
	info, err := a.image(r)
	switch {
	case err != nil:
		return err
	case len(path) == 2 && req.Method == http.MethodPost:
		return a.verifyImage(w, req, r)
	case len(path) == 2:
		return notAllowed("POST")
	case req.Method == http.MethodGet:
		return answer(w, map[string]any{"image": viewImage(info)})
	case req.Method == http.MethodDelete:
		if err := a.Images.Remove(r); err != nil {
			return err
		}
		return answer(w, map[string]any{"image": viewImage(info)})
	}
	return notAllowed("GET and DELETE")
}

// image finds a release.
func (a *API) image(r release.Ref) (depot.Info, error) {
	list, err := a.Images.List()
	if err != nil {
		return depot.Info{}, err
	}
	for _, i := range list {
		if i.Ref == r {
			return i, nil
		}
	}
	_, err = a.Images.Get(r) // which says what to do
	if err == nil {
		err = depot.ErrUnknown
	}
	return depot.Info{}, err
}

func (a *API) listImages(w http.ResponseWriter) error {
	list, err := a.Images.List()
	if err != nil {
		return err
	}
	views := []imageView{}
	for _, i := range list {
		views = append(views, viewImage(i))
	}
	return answer(w, map[string]any{"images": views})
}

func (a *API) verifyImage(w http.ResponseWriter, req *http.Request, r release.Ref) error {
	if _, err := a.Images.Verify(req.Context(), r); err != nil {
		return err
	}
	info, err := a.image(r)
	if err != nil {
		return err
	}
	return answer(w, map[string]any{"image": viewImage(info)})
}

func (a *API) collectImages(w http.ResponseWriter, req *http.Request) error {
	if req.Method != http.MethodPost {
		return notAllowed("POST")
	}
	var in struct {
		Keep   int  `json:"keep"` // releases of each system, channel and architecture
		DryRun bool `json:"dry_run"`
	}
	in.Keep = 2
	body, err := readBody(w, req)
	if err != nil {
		return err
	}
	if err := decodeFields(body, &in); err != nil {
		return err
	}
	if in.Keep < 0 || in.Keep > 1000 {
		return invalid("keep", "%d is not between 0 and 1000", in.Keep)
	}
	done, err := a.Images.Collect(in.Keep, in.DryRun)
	if err != nil {
		return err
	}
	return answer(w, map[string]any{"collected": done})
}

// pullImage pulls while the client waits; when it goes, the pull ends, and the
// next one goes on where it ended. With Accept: text/event-stream progress is
// told as server-sent events (WHATWG HTML), and the outcome is the last of them.
func (a *API) pullImage(w http.ResponseWriter, req *http.Request) error {
	body, err := readBody(w, req)
	if err != nil {
		return err
	}
	var in pull.Request
	if err := decodeFields(body, &in); err != nil {
		return err
	}
	if req.Header.Get("Accept") != eventStream {
		info, err := a.pulled(req.Context(), in, func(pull.Progress) {})
		if err != nil {
			return err
		}
		return answer(w, map[string]any{"image": viewImage(info)})
	}
	s := newStream(w)
	info, err := a.pulled(req.Context(), in, func(p pull.Progress) { s.progress(p) })
	if err != nil {
		return s.failed(a, req, err)
	}
	return s.send("done", map[string]any{"image": viewImage(info)})
}

// pulled pulls, and tells the operator why it did not work: whatever it is, it
// is of the mirror or of this host.
func (a *API) pulled(ctx context.Context, in pull.Request, tell func(pull.Progress)) (depot.Info, error) {
	m, err := a.Pull(ctx, in, tell)
	if err != nil {
		a.Log.WarnContext(ctx, "image was not pulled", "image", in.Ref, "err", err)
		if asAPIError(err) == nil || errors.Is(err, fs.ErrNotExist) { // of what, only the whole sentence tells
			err = &apiError{Status: http.StatusBadGateway, Message: err.Error(), Code: "pull_failed"}
		}
		return depot.Info{}, err
	}
	a.Log.InfoContext(ctx, "image was pulled", "image", m.ID(), "from", m.Source)
	return a.image(m.Ref)
}

const eventStream = "text/event-stream"

// stream tells a client what goes on while it waits.
type stream struct {
	w    http.ResponseWriter
	last time.Time // when a number of bytes was told
}

func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", eventStream)
	w.Header().Set("Cache-Control", "no-store")
	return &stream{w: w}
}

// progress tells every step, and bytes five times a second at most.
func (s *stream) progress(p pull.Progress) {
	const often = 200 * time.Millisecond
	if p.Step == "file" && p.Done != p.Total {
		if time.Since(s.last) < often {
			return
		}
		s.last = time.Now()
	}
	_ = s.send("progress", p) // a client that has gone ends the request
}

func (s *stream) send(event string, body any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	if _, err := fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", event, data); err != nil {
		return nil // nobody is left to tell
	}
	_ = http.NewResponseController(s.w).Flush()
	return nil
}

// failed ends a stream with an error. Its status comes too late for a header.
func (s *stream) failed(a *API, req *http.Request, err error) error {
	e := asAPIError(err)
	if e == nil {
		if !errors.Is(err, context.Canceled) {
			a.Log.ErrorContext(req.Context(), "request failed", "err", err)
		}
		e = &apiError{Status: http.StatusInternalServerError, Message: "internal error; see the log of bootd", Code: "internal_error"}
	}
	return s.send("failed", e)
}
