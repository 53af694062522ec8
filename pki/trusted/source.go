package trusted

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	fetchTimeout = 15 * time.Second
	fetchEvery   = 5 * time.Minute
	fetchRetry   = time.Minute // after a failure
)

// source is what is known of where an entry's lists come from.
type source struct {
	busy sync.Mutex // held while it is read

	mu       sync.Mutex
	err      error     // why the last try failed
	tried    time.Time // when it was
	seen     fileState
	etag     string
	modified string
}

// fileState tells whether a file was replaced or written.
type fileState struct {
	size  int64
	time  time.Time
	inode uint64
}

// missingError says that there is no list to be had, which is another thing
// than a wrong one.
type missingError struct{ err error }

func (e *missingError) Error() string { return e.err.Error() }
func (e *missingError) Unwrap() error { return e.err }

func (s *source) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// outcome takes down how a try went, and reports whether that is news.
func (s *source) outcome(err error, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := err != nil && (s.err == nil || s.err.Error() != err.Error())
	s.err, s.tried = err, now
	return news
}

// due reports whether an address is to be asked again.
func (s *source) due(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := fetchEvery
	if s.err != nil {
		wait = fetchRetry
	}
	age := now.Sub(s.tried)
	return age >= wait || age < 0 // the clock was set back
}

func (t *Trusted) refresh(ctx context.Context, m *member) {
	if m.spec.CRL.File != "" {
		t.refreshFile(ctx, m)
	} else {
		t.refreshURL(ctx, m)
	}
}

// refreshFile reads the file if it is another one than last time, or if it was
// no good then and a minute has passed. Who finds it being read leaves.
func (t *Trusted) refreshFile(ctx context.Context, m *member) {
	if !m.source.busy.TryLock() {
		return
	}
	defer m.source.busy.Unlock()
	state, err := stat(m.spec.CRL.File)
	if err == nil && state == m.source.seen && (m.source.failed() == nil || !m.source.due(t.cfg.Now())) {
		return
	}
	var data []byte
	if err == nil {
		data, err = readLimited(m.spec.CRL.File)
	}
	if err != nil {
		err = &missingError{err}
	}
	m.source.seen = state
	t.took(ctx, m, data, err)
}

func stat(path string) (fileState, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileState{}, err
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait
		return fileState{}, fmt.Errorf("%s is not a file", path)
	}
	state := fileState{size: info.Size(), time: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		state.inode = st.Ino
	}
	return state, nil
}

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, maxCRL+1))
}

// refreshURL asks the address, unless there is nothing new.
func (t *Trusted) refreshURL(ctx context.Context, m *member) {
	m.source.busy.Lock()
	defer m.source.busy.Unlock()
	data, err := t.fetch(ctx, m)
	if ctx.Err() != nil && t.all.Load().number(m.id) == m {
		return // Run ends, which says nothing about the list
	}
	if errors.Is(err, errNothingNew) {
		m.source.outcome(nil, t.cfg.Now())
		return
	}
	t.took(ctx, m, data, err)
}

var errNothingNew = errors.New("not modified")

func (t *Trusted) fetch(ctx context.Context, m *member) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.spec.CRL.URL, nil)
	if err != nil {
		return nil, &missingError{err}
	}
	if m.source.etag != "" {
		req.Header.Set("If-None-Match", m.source.etag)
	}
	if m.source.modified != "" {
		req.Header.Set("If-Modified-Since", m.source.modified)
	}
	resp, err := t.cfg.Fetch.Do(req)
	if err != nil {
		return nil, &missingError{err}
	}
	defer func() { _ = resp.Body.Close() }()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified:
		return nil, errNothingNew
	default:
		return nil, &missingError{fmt.Errorf("%s answered %d", m.spec.CRL.URL, resp.StatusCode)}
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxCRL+1))
	if err != nil {
		return nil, &missingError{fmt.Errorf("read %s: %w", m.spec.CRL.URL, err)}
	}
	etag, modified := resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")
	if len(etag)+len(modified) > 1<<10 {
		etag, modified = "", ""
	}
	m.source.etag, m.source.modified = etag, modified
	return data, nil
}

// took puts what was read to use, and says so if something changed.
func (t *Trusted) took(ctx context.Context, m *member, data []byte, err error) {
	changed := false
	if err == nil {
		changed, err = t.useLists(m, data)
	}
	if err != nil {
		m.source.etag, m.source.modified = "", "" // a bad answer must not be confirmed
	}
	if m.source.outcome(err, t.cfg.Now()) {
		if m.stale(t.cfg.Now()) {
			t.log.WarnContext(ctx, "a revocation list could not be used, and there is no current one", "stage", "trust", "name", m.spec.Name, "err", err)
		} else {
			t.log.WarnContext(ctx, "a revocation list could not be used; the last good one goes on", "stage", "trust", "name", m.spec.Name, "err", err)
		}
	}
	if changed && t.all.Load().number(m.id) == m {
		t.saveLists(ctx, m)
		t.bell.ring()
		t.log.InfoContext(ctx, "revocation list was read", "stage", "trust", "name", m.spec.Name)
	}
}

// useLists enters what data holds, and reports whether it was not there yet.
func (t *Trusted) useLists(m *member, data []byte) (changed bool, err error) {
	if len(data) > largeCRL {
		t.parsing.Lock()
		defer t.parsing.Unlock()
	}
	newer, err := parseLists(data, m.certs, t.cfg.Now())
	if err != nil {
		return false, err
	}
	before := m.lists.Load()
	merged, err := before.merge(newer, t.cfg.Now())
	for issuer, l := range *merged {
		former, ok := (*before)[issuer]
		changed = changed || !ok || !bytes.Equal(former.raw, l.raw) || len(former.revoked) != len(l.revoked)
	}
	if changed {
		m.lists.Store(merged)
	}
	return changed, err
}

// newClient gets lists from others' hosts. It follows redirects to the same
// host only, and refuses addresses at which no authority publishes but where
// something may listen that trusts this host.
func newClient() *http.Client {
	dialer := &net.Dialer{Timeout: fetchTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("parse address: %w", err)
		}
		a := at.Addr().Unmap()
		if a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("%s is an address of this host or link: publish the list elsewhere, or name it as a file", a)
		}
		return nil
	}}
	return &http.Client{
		Timeout:   fetchTimeout,
		Transport: &http.Transport{DialContext: dialer.DialContext, TLSHandshakeTimeout: fetchTimeout, MaxIdleConns: 10, IdleConnTimeout: time.Minute},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > 3 || req.URL.Host != via[0].URL.Host {
				return fmt.Errorf("it redirects to %.200q: name that address instead", req.URL.Host)
			}
			return nil
		},
	}
}
