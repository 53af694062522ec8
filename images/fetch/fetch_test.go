package fetch

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/nestboot/nestboot/integration/mirror"
)

func nothing(int64, int64) {}

// client trusts the mirror, and knows its address by configuration.
func client(t *testing.T, m *mirror.Mirror, c Config) *Client {
	t.Helper()
	c.CA = m.CAFile
	c.Mirrors = append(c.Mirrors, m.URL)
	out, err := NewClient(c)
	require.NoError(t, err)
	out.retry = 0
	t.Cleanup(out.Close)
	return out
}

func site(t *testing.T, m *mirror.Mirror) *Site {
	t.Helper()
	s, err := client(t, m, Config{}).Site(m.URL, false)
	require.NoError(t, err)
	return s
}

func random(t *testing.T, n int) []byte {
	t.Helper()
	data := make([]byte, n)
	_, err := rand.Read(data)
	require.NoError(t, err)
	return data
}

func TestSmall(t *testing.T) {
	m := mirror.New(t)
	m.Put("a/b+c", []byte("hello"))
	s := site(t, m)
	data, err := s.Small(t.Context(), "a/b+c", 5)
	require.NoError(t, err)
	require.Equal(t, "hello", string(data))
	_, err = s.Small(t.Context(), "a/b+c", 4)
	require.ErrorContains(t, err, "more than 4 bytes")
	_, err = s.Small(t.Context(), "gone", 4)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestLargeResumes(t *testing.T) {
	m := mirror.New(t)
	data := random(t, 1<<20)
	m.Put("image", data)
	to := filepath.Join(t.TempDir(), "part")
	ctx, cancel := context.WithCancel(t.Context())
	err := site(t, m).Large(ctx, "image", to, 1<<30, func(done, _ int64) {
		if done > 100_000 {
			cancel() // Ctrl-C, a power cut
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	st, err := os.Stat(to)
	require.NoError(t, err)
	require.Positive(t, st.Size())

	require.NoError(t, site(t, m).Large(t.Context(), "image", to, 1<<30, nothing))
	got, err := os.ReadFile(to)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.Contains(t, m.Requests()[1], "bytes=", "only the rest was asked for")

	asked := len(m.Requests())
	require.NoError(t, site(t, m).Large(t.Context(), "image", to, 1<<30, nothing), "what is whole stays")
	require.Len(t, m.Requests(), asked+1)

	other := random(t, 1<<19)
	m.Put("image", other)
	require.NoError(t, site(t, m).Large(t.Context(), "image", to, 1<<30, nothing), "another file under the same name begins anew")
	got, err = os.ReadFile(to)
	require.NoError(t, err)
	require.True(t, bytes.Equal(other, got))
}

// TestNothingIsSpliced: a copy from a folder that was cut short is not the
// beginning of the site's file that was begun before it.
func TestNothingIsSpliced(t *testing.T) {
	m := mirror.New(t)
	data, other := random(t, 10<<20), random(t, 10<<20)
	m.Put("image", data)
	to, dir := filepath.Join(t.TempDir(), "part"), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "image"), other, 0o600))
	f, err := NewFolder(dir, 0)
	require.NoError(t, err)
	for _, from := range []Source{site(t, m), f} {
		ctx, cancel := context.WithCancel(t.Context())
		require.ErrorIs(t, from.Large(ctx, "image", to, 1<<30, func(int64, int64) { cancel() }), context.Canceled)
	}
	require.NoError(t, site(t, m).Large(t.Context(), "image", to, 1<<30, nothing))
	got, err := os.ReadFile(to)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
}

func TestLargeGoesOnAfterABreak(t *testing.T) {
	m := mirror.New(t)
	data := random(t, 3<<20)
	m.Put("image", data)
	var answers atomic.Int32
	m.Before(func(w http.ResponseWriter, req *http.Request) bool {
		if answers.Add(1)%2 == 0 {
			return false
		}
		w.Header().Set("ETag", `"x"`)
		w.Header().Set("Content-Length", "3145728")
		_, err := w.Write(data[:1<<20])
		if err == nil && req.Header.Get("Range") == "" {
			panic(http.ErrAbortHandler)
		}
		return true
	})
	to := filepath.Join(t.TempDir(), "part")
	require.NoError(t, site(t, m).Large(t.Context(), "image", to, 1<<30, nothing))
	got, err := os.ReadFile(to)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
}

// TestLargeGivesUp: without an ETag each try begins anew, and one that came
// further than the last is no progress.
func TestLargeGivesUp(t *testing.T) {
	m := mirror.New(t)
	var answers atomic.Int32
	m.Before(func(w http.ResponseWriter, _ *http.Request) bool {
		n := answers.Add(1)
		w.Header().Set("Content-Length", "1000")
		if n > 50 {
			_, _ = w.Write(make([]byte, 1000))
			return true
		}
		_, _ = w.Write(make([]byte, 100+n%2*100))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	require.ErrorIs(t, site(t, m).Large(t.Context(), "image", filepath.Join(t.TempDir(), "part"), 1<<30, nothing), errBroken)
	require.Less(t, answers.Load(), int32(10))
}

func TestLargeRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"too long, said": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "5000") }, "5000 bytes; at most 1000"},
		"too long, not said": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.CopyN(w, strings.NewReader(strings.Repeat("x", 5000)), 5000)
		}, "goes on after"},
		"refused":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, "answers 403"},
		"server error": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, "answers 502"},
		"T26 compressed": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write([]byte("x"))
		}, "nobody asked for"},
	} {
		t.Run(name, func(t *testing.T) {
			m := mirror.New(t)
			m.Before(func(w http.ResponseWriter, req *http.Request) bool {
				tt.answer(w, req)
				if f, ok := w.(http.Flusher); ok {
					f.Flush()
				}
				return true
			})
			err := site(t, m).Large(t.Context(), "image", filepath.Join(t.TempDir(), "part"), 1000, nothing)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestFullDisk(t *testing.T) {
	m := mirror.New(t)
	m.Put("image", random(t, 1<<20))
	s, err := client(t, m, Config{Reserve: 1 << 60}).Site(m.URL, false)
	require.NoError(t, err)
	to := filepath.Join(t.TempDir(), "part")
	err = s.Large(t.Context(), "image", to, 1<<30, nothing)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, "nestctl image gc")
	require.NoFileExists(t, to, "what was taken is given back")
	f, err := NewFolder(t.TempDir(), 1<<60)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(f.dir, "image"), []byte("x"), 0o600))
	require.ErrorIs(t, f.Large(t.Context(), "image", to, 1<<30, nothing), syscall.ENOSPC)
}

func TestT25_Addresses(t *testing.T) {
	for addr, want := range map[string]struct{ unnamed, named bool }{
		"93.184.216.34":          {true, true},
		"2606:4700::1":           {true, true},
		"127.0.0.1":              {false, true},
		"127.8.9.10":             {false, true},
		"::1":                    {false, true},
		"::ffff:127.0.0.1":       {false, true},
		"64:ff9b::7f00:1":        {false, true},
		"64:ff9b::5db8:d822":     {true, true},
		"2002:7f00:1::":          {false, true},
		"10.0.0.1":               {false, true},
		"172.16.3.4":             {false, true},
		"192.168.1.1":            {false, true},
		"::ffff:10.0.0.1":        {false, true},
		"fd00:ec2::254":          {false, true}, // metadata of a cloud
		"100.100.100.200":        {false, true}, // of another
		"192.0.0.192":            {false, true}, // and another
		"168.63.129.16":          {false, true}, // and one that looks public
		"64:ff9b:1::a9fe:a9fe":   {false, false},
		"fec0::1":                {false, false},
		"::127.0.0.1":            {false, false},
		"::ffff:0:127.0.0.1":     {false, false},
		"2001::7f00:1":           {false, false}, // Teredo
		"2001:200::1":            {true, true},
		"169.254.169.254":        {false, false},
		"::ffff:169.254.169.254": {false, false},
		"64:ff9b::a9fe:a9fe":     {false, false},
		"fe80::1":                {false, false},
		"fe80::1%eth0":           {false, false},
		"0.0.0.0":                {false, false},
		"::":                     {false, false},
		"0.1.2.3":                {false, false},
		"224.0.0.1":              {false, false},
		"255.255.255.255":        {false, false},
		"ff02::1":                {false, false},
	} {
		a := netip.MustParseAddr(addr)
		require.Equal(t, want.unnamed, checkAddr(a, false) == nil, addr)
		require.Equal(t, want.named, checkAddr(a, true) == nil, "%s, named", addr)
	}
}

func TestT25_LoopbackOnlyForNamedMirrors(t *testing.T) {
	m := mirror.New(t)
	m.Put("x", []byte("x"))
	c, err := NewClient(Config{CA: m.CAFile})
	require.NoError(t, err)
	s, err := c.Site(m.URL, false)
	require.NoError(t, err)
	_, err = s.Small(t.Context(), "x", 10)
	require.ErrorContains(t, err, "name it in downloads.mirrors")
	require.Empty(t, m.Requests(), "nothing reached it")
}

// names answers DNS, each name with what the function says.
func names(t *testing.T, answer func() []netip.Addr) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			var msg dnsmessage.Message
			if msg.Unpack(buf[:n]) != nil || len(msg.Questions) == 0 {
				continue
			}
			msg.Response, msg.Additionals = true, nil
			if q := msg.Questions[0]; q.Type == dnsmessage.TypeA {
				for _, a := range answer() {
					msg.Answers = append(msg.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
						Body:   &dnsmessage.AResource{A: a.As4()},
					})
				}
			}
			if out, err := msg.Pack(); err == nil {
				_, _ = pc.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() { _ = pc.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

func TestT25_NameThatFlips(t *testing.T) {
	m := mirror.New(t)
	u, err := url.Parse(m.URL)
	require.NoError(t, err)
	var asked atomic.Int32
	c, err := NewClient(Config{CA: m.CAFile})
	require.NoError(t, err)
	c.resolve = names(t, func() []netip.Addr {
		if asked.Add(1) == 1 {
			return []netip.Addr{netip.MustParseAddr("93.184.216.34")}
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	})
	first, err := c.resolve.LookupNetIP(t.Context(), "ip4", "mirror.test")
	require.NoError(t, err)
	require.NoError(t, checkAddr(first[0], false), "who asks first sees an innocent address")
	s, err := c.Site("https://mirror.test:"+u.Port(), false)
	require.NoError(t, err)
	_, err = s.Small(t.Context(), "x", 10)
	require.ErrorContains(t, err, "is an address of this host")
	require.Empty(t, m.Requests())
}

func TestT25_Redirects(t *testing.T) {
	m, other := mirror.New(t), mirror.New(t)
	other.Put("x", []byte("x"))
	m.Put("y", []byte("y"))
	for name, tt := range map[string]struct{ to, want string }{
		"another host":  {other.URL + "/x", "it redirects to"},
		"plain":         {strings.Replace(m.URL, "https:", "http:", 1) + "/y", "it redirects to"},
		"metadata":      {"http://169.254.169.254/latest", "it redirects to"},
		"the same host": {"/y", ""},
		"round":         {"/x", "it redirects to"},
	} {
		t.Run(name, func(t *testing.T) {
			m.Before(func(w http.ResponseWriter, req *http.Request) bool {
				if req.URL.Path != "/x" {
					return false
				}
				http.Redirect(w, req, tt.to, http.StatusFound)
				return true
			})
			data, err := site(t, m).Small(t.Context(), "x", 10)
			if tt.want != "" {
				require.ErrorContains(t, err, tt.want)
				return
			}
			require.NoError(t, err)
			require.Equal(t, "y", string(data))
		})
	}
	require.Empty(t, other.Requests())
}

func TestPlainHTTPMustBeAllowed(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) }))
	t.Cleanup(srv.Close)
	c, err := NewClient(Config{Mirrors: []string{srv.URL}})
	require.NoError(t, err)
	_, err = c.Site(srv.URL, false)
	require.ErrorContains(t, err, "--plain-http")
	s, err := c.Site(srv.URL, true)
	require.NoError(t, err)
	_, err = s.Small(t.Context(), "x", 10)
	require.NoError(t, err)
	for _, bad := range []string{"", "file:///etc", "https://", "https://u:p@h/", "ftp://h/", "https://h/?x"} {
		_, err := c.Site(bad, true)
		require.Error(t, err, bad)
	}
}

func TestProxy(t *testing.T) {
	m := mirror.New(t)
	m.Put("x", []byte("through"))
	var connects atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodConnect {
			return
		}
		connects.Add(1)
		u, _ := url.Parse(m.URL)
		var d net.Dialer
		up, err := d.DialContext(req.Context(), "tcp", u.Host) // wherever it was to
		if err != nil {
			return
		}
		down, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(up, down); _ = up.Close() }()
		_, _ = io.Copy(down, up)
		_ = down.Close()
	}))
	t.Cleanup(proxy.Close)
	c, err := NewClient(Config{CA: m.CAFile, Proxy: proxy.URL})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	s, err := c.Site("https://example.com", false) // httptest's certificate is for that name
	require.NoError(t, err)
	data, err := s.Small(t.Context(), "x", 10)
	require.NoError(t, err)
	require.Equal(t, "through", string(data))
	require.EqualValues(t, 1, connects.Load())
	for _, bad := range []string{"https://169.254.169.254", "https://localhost", "https://a.localhost.", "https://[::ffff:127.0.0.1]"} {
		s, err := c.Site(bad, false)
		require.NoError(t, err)
		_, err = s.Small(t.Context(), "x", 10)
		require.Error(t, err, "T25: %s is not asked of the proxy", bad)
	}
	require.EqualValues(t, 1, connects.Load())
	_, err = NewClient(Config{Proxy: "http://user:secret@"})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "secret")
}

func TestT27_FolderStaysInside(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o600))
	in := filepath.Join(dir, "in")
	require.NoError(t, os.MkdirAll(filepath.Join(in, "a"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(in, "kernel"), []byte("flat"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(in, "a/initrd"), []byte("laid out"), 0o600))
	require.NoError(t, os.Symlink("../secret", filepath.Join(in, "link")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(in, "pipe"), 0o600))
	f, err := NewFolder(in, 0)
	require.NoError(t, err)
	for path, want := range map[string]string{"a/kernel": "flat", "a/initrd": "laid out"} {
		data, err := f.Small(t.Context(), path, 100)
		require.NoError(t, err)
		require.Equal(t, want, string(data))
		to := filepath.Join(dir, "copy")
		require.NoError(t, f.Large(t.Context(), path, to, 100, nothing))
		got, err := os.ReadFile(to)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	for _, path := range []string{"../secret", "link", "pipe", "a", "/etc/passwd", "x"} {
		_, err := f.Small(t.Context(), path, 100)
		require.Error(t, err, path)
	}
	_, err = f.Small(t.Context(), "x", 100)
	require.True(t, errors.Is(err, fs.ErrNotExist))
	require.Error(t, f.Large(t.Context(), "a/initrd", filepath.Join(dir, "copy"), 3, nothing))
	_, err = NewFolder("relative", 0)
	require.Error(t, err)
}
