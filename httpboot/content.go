package httpboot

import (
	"io"
	"net/http"
	"strings"
	"time"
)

// serveContent sends a file with ETag, Range and HEAD, and returns how many
// bytes of the body left. One range at most: a list of ranges is answered with
// the whole file, as RFC 9110 section 14.2 allows (T8).
func (s *Server) serveContent(w http.ResponseWriter, req *http.Request, sha256 string, modified time.Time, content io.ReadSeeker) (int64, error) {
	if strings.Contains(req.Header.Get("Range"), ",") || len(req.Header.Values("Range")) > 1 {
		req.Header.Del("Range")
	}
	from := newSource(content)
	if err := from.probe(); err != nil { // while the client can still be told
		return 0, unavailable("image-unreadable", err)
	}
	h := w.Header()
	h.Set("ETag", `"`+sha256+`"`)
	h.Set("Content-Type", "application/octet-stream")
	to := &body{ResponseWriter: w, req: req, s: s, from: from, pace: s.newPace(time.Now())}
	if req.Method != http.MethodHead {
		s.downloads.Add(1)
		defer s.downloads.Add(-1)
		to.line = s.share.join(machineOf(req))
		defer s.share.leave(to.line)
	}
	http.ServeContent(to, req, "", modified, from)
	return to.sent, to.end()
}
