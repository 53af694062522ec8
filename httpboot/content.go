package httpboot

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
)

// stallTimeout is for a client that takes nothing. It is renewed at every
// write, so a slow but steady download of any length ends well (T7).
const stallTimeout = 60 * time.Second

// serveContent sends a file with ETag, Range and HEAD, and returns how many
// bytes of the body left. One range at most: a list of ranges is answered with
// the whole file, as RFC 9110 section 14.2 allows (T8).
func serveContent(w http.ResponseWriter, req *http.Request, sha256 string, modified time.Time, content io.ReadSeeker) (int64, error) {
	if strings.Contains(req.Header.Get("Range"), ",") || len(req.Header.Values("Range")) > 1 {
		req.Header.Del("Range")
	}
	h := w.Header()
	h.Set("ETag", `"`+sha256+`"`)
	h.Set("Content-Type", "application/octet-stream")
	to := &paced{ResponseWriter: w, control: http.NewResponseController(w)}
	from := &watched{ReadSeeker: content}
	http.ServeContent(to, req, "", modified, from)
	switch {
	case from.err != nil:
		return to.sent, unavailable("image-unreadable", from.err)
	case to.err != nil && cutOffError(connOf(req)) != nil:
		return to.sent, cutOffError(connOf(req))
	case to.err != nil:
		return to.sent, refuse(http.StatusRequestTimeout, "client-left", to.err)
	}
	return to.sent, nil
}

// paced is a ResponseWriter that counts, and renews the write deadline on
// progress.
type paced struct {
	http.ResponseWriter
	control *http.ResponseController
	sent    int64
	err     error
}

func (p *paced) Write(b []byte) (int, error) {
	if p.err = p.control.SetWriteDeadline(time.Now().Add(stallTimeout)); p.err != nil {
		return 0, p.err
	}
	n, err := p.ResponseWriter.Write(b)
	p.sent, p.err = p.sent+int64(n), err
	return n, err
}

// watched remembers why a file could not be read.
type watched struct {
	io.ReadSeeker
	err error
}

func (f *watched) Read(b []byte) (int, error) {
	n, err := f.ReadSeeker.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}
