package httpboot

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// A client that takes nothing for stallTimeout is cut off. The deadline is
// renewed after every chunk, so a slow but steady download of any length ends
// well (T7).
const (
	stallTimeout = 60 * time.Second
	chunk        = 1 << 20
)

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
	p := &paced{ResponseWriter: w, control: http.NewResponseController(w)}
	http.ServeContent(p, req, "", modified, content)
	if p.err != nil {
		return p.sent, fmt.Errorf("client left after %d bytes: %w", p.sent, p.err)
	}
	return p.sent, nil
}

// paced is a ResponseWriter that counts and renews the write deadline on
// progress. It hands files down in chunks, so that plain HTTP still uses
// sendfile.
type paced struct {
	http.ResponseWriter
	control *http.ResponseController
	sent    int64
	err     error
}

func (p *paced) Write(b []byte) (int, error) {
	if err := p.renew(); err != nil {
		return 0, err
	}
	n, err := p.ResponseWriter.Write(b)
	p.sent, p.err = p.sent+int64(n), err
	return n, err
}

// ReadFrom is how http.ServeContent hands over a file: as an
// *io.LimitedReader. The standard library recognises one such wrapper around
// an *os.File, not two, hence the unwrapping.
func (p *paced) ReadFrom(src io.Reader) (int64, error) {
	limit, ok := src.(*io.LimitedReader)
	if !ok {
		return io.Copy(writerOnly{p}, src)
	}
	var total int64
	for limit.N > 0 {
		if err := p.renew(); err != nil {
			return total, err
		}
		part := &io.LimitedReader{R: limit.R, N: min(limit.N, chunk)}
		n, err := io.Copy(p.ResponseWriter, part)
		total, p.sent, limit.N = total+n, p.sent+n, limit.N-n
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			p.err = err
			return total, err
		}
	}
	return total, nil
}

func (p *paced) renew() error {
	if err := p.control.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
		p.err = err
		return fmt.Errorf("renew write deadline: %w", err)
	}
	return nil
}

// writerOnly hides ReadFrom from io.Copy.
type writerOnly struct{ io.Writer }
