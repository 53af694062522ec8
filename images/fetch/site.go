package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"strings"
)

// Source is where the files of releases are. Paths are relative, with slashes.
type Source interface {
	// Small returns a whole file of at most limit bytes. One that is not there is
	// fs.ErrNotExist.
	Small(ctx context.Context, path string, limit int64) ([]byte, error)
	// Large writes a file of at most limit bytes to the path to. What an earlier
	// call has left there is gone on with, if the source can tell that it is of the
	// same file. After an error, what is there is not the file.
	Large(ctx context.Context, path, to string, limit int64, progress func(done, total int64)) error
	// String names the source for people, without secrets.
	String() string
}

// Site is an HTTP server.
type Site struct {
	client *Client
	base   *url.URL
}

// Site returns the files below a URL. With plain, that may be http://.
func (c *Client) Site(base string, plain bool) (*Site, error) {
	u, err := parseURL(base)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "https" && !plain {
		return nil, fmt.Errorf("%s is not encrypted, so everybody on the way sees and may delay what is fetched: use https://, or allow it with --plain-http", u)
	}
	return &Site{client: c, base: u}, nil
}

func (s *Site) String() string { return s.base.String() }

// Small returns a whole file.
func (s *Site) Small(ctx context.Context, path string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, stallTimeout)
	defer cancel()
	res, err := s.get(ctx, path, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // it has been read
	data, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.url(path), err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", s.url(path), limit)
	}
	return data, nil
}

// url joins base and path. Segments are taken as they are: a version may hold
// what a URL must escape.
func (s *Site) url(path string) *url.URL {
	u := *s.base
	u.Path = strings.TrimSuffix(u.Path, "/") + "/" + path
	u.RawPath = ""
	return &u
}

// get asks for a file and returns an answer with a body.
func (s *Site) get(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	u := s.url(path)
	if err := s.client.checkBehindProxy(u); err != nil {
		return nil, fmt.Errorf("fetch %s: %w", u, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	maps.Copy(req.Header, header)
	res, err := s.client.http.Do(req)
	if err != nil {
		return nil, explain(err)
	}
	switch {
	case res.Header.Get("Content-Encoding") != "":
		err = fmt.Errorf("%s comes as %.40q, which nobody asked for", u, res.Header.Get("Content-Encoding"))
	case res.StatusCode == http.StatusOK, res.StatusCode == http.StatusPartialContent && header.Get("Range") != "":
		return res, nil
	case res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusGone:
		err = fmt.Errorf("%s answers %d: %w", u, res.StatusCode, fs.ErrNotExist)
	default:
		err = &statusError{url: u.String(), status: res.StatusCode, contentRange: res.Header.Get("Content-Range")}
	}
	_ = res.Body.Close() // only the error counts
	return nil, err
}

// statusError is an answer that is neither a file nor its absence.
type statusError struct {
	url          string
	status       int
	contentRange string // how long a file is that has not the range asked for
}

func (e *statusError) Error() string { return fmt.Sprintf("%s answers %d", e.url, e.status) }

// explain takes the method's name off, which says nothing, and marks what another
// try may mend.
func explain(err error) error {
	var u *url.Error
	if !errors.As(err, &u) {
		return err
	}
	if errors.Is(u.Err, io.EOF) || errors.Is(u.Err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("fetch %s: %w: %w", u.URL, errBroken, u.Err)
	}
	return fmt.Errorf("fetch %s: %w", u.URL, u.Err)
}
