package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/nestboot/nestboot/images"
)

// tries is how often a download that makes no progress is taken up.
const tries = 4

// origin says what a partial file is the beginning of. It lies beside it, and is
// believed only together with the server, which confirms it by If-Range (RFC
// 9110, 13.1.5).
type origin struct {
	URL  string `json:"url"`
	ETag string `json:"etag"`
}

// OriginSuffix is added to a partial file's name for what is known of it.
const OriginSuffix = ".origin"

// Large downloads a file, from where an earlier try ended.
func (s *Site) Large(ctx context.Context, path, to string, limit int64, progress func(done, total int64)) error {
	f, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open partial download: %w", err)
	}
	d := &download{site: s, path: path, limit: limit, file: f, progress: progress}
	err = d.run(ctx)
	if images.NoSpace(err) { // others need what this has taken
		return errors.Join(err, f.Close(), os.Remove(to), ignoreMissing(os.Remove(to+OriginSuffix)))
	}
	return errors.Join(err, f.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// download is one file on its way.
type download struct {
	site     *Site
	path     string
	limit    int64
	file     *os.File
	progress func(done, total int64)
	done     int64
}

// errBroken is a connection that ended too early: another may bring the rest.
var errBroken = errors.New("the connection broke off")

// run tries until the file is whole, as long as tries bring it further.
func (d *download) run(ctx context.Context) error {
	best := int64(0) // a server without strong ETags begins anew each time
	for idle := 1; ; idle++ {
		err := d.try(ctx)
		var status *statusError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(err, errBroken) && (!errors.As(err, &status) || status.status < 500):
			return err
		case d.done > best:
			idle, best = 1, d.done
		case idle >= tries:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d.site.client.retry):
		}
	}
}

func (d *download) try(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	header, err := d.resume()
	if err != nil {
		return err
	}
	res, err := d.site.get(ctx, d.path, header)
	var status *statusError
	if errors.As(err, &status) && status.status == http.StatusRequestedRangeNotSatisfiable {
		if status.contentRange == fmt.Sprintf("bytes */%d", d.done) { // all of it is here
			d.progress(d.done, d.done)
			return nil
		}
		if err := d.restart(""); err != nil {
			return err
		}
		res, err = d.site.get(ctx, d.path, nil)
	}
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // its end is known by the bytes
	total, err := d.accept(res)
	if err != nil {
		return err
	}
	stall := time.AfterFunc(stallTimeout, func() { cancel(fmt.Errorf("%w: nothing came for %s", errBroken, stallTimeout)) })
	defer stall.Stop()
	return d.copy(ctx, res.Body, total, func() { stall.Reset(stallTimeout) })
}

// resume says what to ask for: the rest, if there is a beginning of which the
// server can say whether it is still the same file's.
func (d *download) resume() (http.Header, error) {
	size, err := d.file.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("look at partial download: %w", err)
	}
	data, err := os.ReadFile(d.file.Name() + OriginSuffix)
	var o origin
	if size == 0 || err != nil || json.Unmarshal(data, &o) != nil || o.URL != d.name() || o.ETag == "" {
		return nil, d.restart("")
	}
	d.done = size
	return http.Header{"Range": {fmt.Sprintf("bytes=%d-", size)}, "If-Range": {o.ETag}}, nil
}

func (d *download) name() string { return d.site.url(d.path).String() }

// restart empties the partial file and writes down what it will be of.
func (d *download) restart(etag string) error {
	data, err := json.Marshal(origin{URL: d.name(), ETag: etag})
	if err != nil {
		return fmt.Errorf("encode origin: %w", err)
	}
	if err := d.file.Truncate(0); err != nil {
		return fmt.Errorf("empty partial download: %w", err)
	}
	if _, err := d.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("empty partial download: %w", err)
	}
	d.done = 0
	return os.WriteFile(d.file.Name()+OriginSuffix, data, 0o600)
}

// accept looks at an answer's headers and returns how many bytes the whole file
// has, -1 if it does not say.
func (d *download) accept(res *http.Response) (total int64, err error) {
	total = res.ContentLength
	if res.StatusCode == http.StatusPartialContent {
		if total, err = d.acceptRest(res.Header.Get("Content-Range")); err != nil {
			return 0, errors.Join(err, d.restart(""))
		}
	} else {
		etag := res.Header.Get("ETag")
		if strings.HasPrefix(etag, "W/") || len(etag) > 200 { // a weak one is no proof of the same bytes
			etag = ""
		}
		if err := d.restart(etag); err != nil {
			return 0, err
		}
	}
	if total > d.limit {
		return 0, fmt.Errorf("%s has %d bytes; at most %d are taken", d.name(), total, d.limit)
	}
	return total, images.RoomFor(d.file.Name(), max(total-d.done, 0), d.site.client.reserve)
}

// acceptRest reads "bytes 100-199/200".
func (d *download) acceptRest(s string) (total int64, err error) {
	rest, ok := strings.CutPrefix(s, fmt.Sprintf("bytes %d-", d.done))
	_, size, found := strings.Cut(rest, "/")
	total, err = strconv.ParseInt(size, 10, 64)
	if !ok || !found || err != nil || total < d.done {
		return 0, fmt.Errorf("%w: %s sends the range %.80q when asked for what begins at %d", errBroken, d.name(), s, d.done)
	}
	return total, nil
}

// copy writes the body to the partial file.
func (d *download) copy(ctx context.Context, body io.Reader, total int64, alive func()) error {
	const checkSpace = 64 << 20 // a file system fills while a download runs
	buf := make([]byte, 256<<10)
	unchecked := int64(0)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := body.Read(buf)
		alive()
		if err := d.write(buf[:n], total); err != nil {
			return err
		}
		if unchecked += int64(n); unchecked >= checkSpace {
			unchecked = 0
			if err := images.RoomFor(d.file.Name(), 0, d.site.client.reserve); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) && (total < 0 || d.done == total):
			return nil
		case err != nil && context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case err != nil:
			return fmt.Errorf("%w after %d bytes of %s: %w", errBroken, d.done, d.name(), err)
		}
	}
}

func (d *download) write(data []byte, total int64) error {
	most := d.limit
	if total >= 0 {
		most = total
	}
	if d.done+int64(len(data)) > most {
		return fmt.Errorf("%s goes on after the %d bytes that it may have", d.name(), most)
	}
	if _, err := d.file.Write(data); err != nil {
		return fmt.Errorf("write download: %w", err)
	}
	d.done += int64(len(data))
	d.progress(d.done, total)
	return nil
}
