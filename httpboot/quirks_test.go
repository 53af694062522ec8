package httpboot

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
)

const quirks = "testdata/quirks"

// quirkWorld serves every name that the recorded requests ask for.
func quirkWorld(t *testing.T) *world {
	w := start(t)
	content := []byte("0123456789abcdef")
	w.server.Site.Artifact = func(context.Context, string, bool) (Artifact, error) {
		return Artifact{Data: content, SHA256: digest(content)}, nil
	}
	return w
}

// TestQuirks replays what real clients sent, byte by byte, and compares the heads
// of the answers. It asks twice on one connection, as they do. How the requests
// were recorded stands beside them.
func TestQuirks(t *testing.T) {
	w := quirkWorld(t)
	requests, err := filepath.Glob(filepath.Join(quirks, "*.request"))
	require.NoError(t, err)
	require.NotEmpty(t, requests)
	for _, path := range requests {
		name := strings.TrimSuffix(filepath.Base(path), ".request")
		t.Run(name, func(t *testing.T) {
			raw, err := os.ReadFile(path)
			require.NoError(t, err)
			c := w.raw(t)
			first := c.ask(raw)
			require.Equal(t, first, c.ask(raw), "the connection is kept")
			goldenHead(t, name, first)
		})
	}
}

func goldenHead(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join(quirks, name+".head")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// TestNoQuirkRedirects asks for what other servers redirect, as clients of
// different care may write it.
func TestNoQuirkRedirects(t *testing.T) {
	w := start(t) // it has rack1/snponly.efi alone
	for request, status := range map[string]string{
		"GET /rack1/snponly.efi HTTP/1.1":                 "200",
		"GET //rack1/snponly.efi HTTP/1.1":                "404",
		"GET /rack1//snponly.efi HTTP/1.1":                "404",
		"GET /rack1/%2e/snponly.efi HTTP/1.1":             "404",
		"GET /rack1/./snponly.efi HTTP/1.1":               "404",
		"GET /%2e%2e/rack1/snponly.efi HTTP/1.1":          "404",
		"GET /RACK1/SNPONLY.EFI HTTP/1.1":                 "404",
		"GET /rack1 HTTP/1.1":                             "404",
		"GET / HTTP/1.1":                                  "404",
		"GET /rack1/snponly.efi/ HTTP/1.1":                "404",
		"GET /rack1%2fsnponly.efi HTTP/1.1":               "200", // the name is what the path comes to
		"GET http://boot.test/rack1/snponly.efi HTTP/1.1": "200", // as to a proxy
	} {
		t.Run(request, func(t *testing.T) {
			head := w.raw(t).ask([]byte(request + "\r\nHost: boot.test\r\n\r\n"))
			require.Equal(t, "HTTP/1.1 "+status, head[:len("HTTP/1.1 200")])
			require.NotContains(t, head, "Location:")
			require.Contains(t, head, "Content-Length:")
		})
	}
}

// TestConditions are those that clients which resume or cache send.
func TestConditions(t *testing.T) {
	w := quirkWorld(t)
	etag := `"` + digest([]byte("0123456789abcdef")) + `"`
	for name, tt := range map[string]struct{ header, status, contentRange string }{
		"same":                 {"If-None-Match: " + etag, "304", ""},
		"same, weakly":         {"If-None-Match: W/" + etag, "304", ""},
		"one of several":       {`If-None-Match: "x", ` + etag, "304", ""},
		"another":              {`If-None-Match: "x"`, "200", ""},
		"range":                {"Range: bytes=4-7", "206", "bytes 4-7/16"},
		"open range":           {"Range: bytes=4-", "206", "bytes 4-15/16"},
		"last bytes":           {"Range: bytes=-4", "206", "bytes 12-15/16"},
		"resumed":              {"Range: bytes=4-\r\nIf-Range: " + etag, "206", "bytes 4-15/16"},
		"changed since":        {"Range: bytes=4-\r\nIf-Range: \"x\"", "200", ""},
		"weak is not the same": {"Range: bytes=4-\r\nIf-Range: W/" + etag, "200", ""},
		"behind the end":       {"Range: bytes=16-", "416", "bytes */16"},
		"two ranges":           {"Range: bytes=0-1,4-5", "200", ""},
		"two headers":          {"Range: bytes=0-1\r\nRange: bytes=4-5", "200", ""},
		"another unit":         {"Range: lines=1-2", "416", ""},
		"precondition":         {`If-Match: "x"`, "412", ""},
	} {
		t.Run(name, func(t *testing.T) {
			head := w.raw(t).ask([]byte("GET /any.efi HTTP/1.1\r\nHost: boot.test\r\n" + tt.header + "\r\n\r\n"))
			require.Equal(t, tt.status, head[len("HTTP/1.1 "):][:3], head)
			if tt.contentRange != "" {
				require.Contains(t, head, "Content-Range: "+tt.contentRange+"\r\n")
			}
		})
	}
}

func TestOldClientsKeepTheirConnection(t *testing.T) {
	w := quirkWorld(t)
	for request, want := range map[string]string{
		"GET /any.efi HTTP/1.0\r\nConnection: keep-alive\r\n\r\n":                    "Connection: keep-alive\r\n",
		"GET /any.efi HTTP/1.0\r\nHost: boot.test\r\nConnection: Keep-Alive\r\n\r\n": "Connection: keep-alive\r\n",
	} {
		c := w.raw(t)
		for range 3 {
			head := c.ask([]byte(request))
			require.Contains(t, head, want)
			require.Contains(t, head, "Content-Length: 16\r\n")
		}
	}
	c := w.raw(t)
	require.NotContains(t, c.ask([]byte("GET /any.efi HTTP/1.0\r\n\r\n")), "keep-alive")
	_, err := c.in.ReadByte()
	require.ErrorIs(t, err, io.EOF, "who does not ask for it is not kept")
}

// TestT08_RangesWithoutNumber sends 170,000 ranges in one header: they do not fit,
// and the answer is as short as any refusal. No file is read for them.
func TestT08_RangesWithoutNumber(t *testing.T) {
	w := quirkWorld(t)
	before := w.count(boot.StageArtifact)
	c := w.raw(t)
	go func() { // the server hangs up in the middle
		_, _ = fmt.Fprintf(c, "GET /any.efi HTTP/1.1\r\nHost: boot.test\r\nRange: bytes=%s0-0\r\n\r\n", strings.Repeat("0-0,", 170_000))
	}()
	answer, _ := io.ReadAll(c.in) //nolint:errcheck // it may end with a reset
	require.Less(t, len(answer), 300)
	require.Equal(t, before, w.count(boot.StageArtifact))
}

// rawConn is a connection without a client library.
type rawConn struct {
	net.Conn
	t  *testing.T
	in *bufio.Reader
}

func (w *world) raw(t *testing.T) *rawConn {
	t.Helper()
	c, err := net.Dial("tcp", w.plain)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	return &rawConn{c, t, bufio.NewReader(c)}
}

var dates = regexp.MustCompile(`Date: [^\r]*\r\n`)

// ask sends a request as it is and returns the head of the answer, without its
// date. The body is as long as the head says.
func (c *rawConn) ask(raw []byte) string {
	c.t.Helper()
	_, err := c.Write(raw)
	require.NoError(c.t, err)
	var head bytes.Buffer
	length := 0
	for {
		line, err := c.in.ReadString('\n')
		require.NoError(c.t, err)
		head.WriteString(line)
		if value, ok := strings.CutPrefix(line, "Content-Length: "); ok {
			length, err = strconv.Atoi(strings.TrimSpace(value))
			require.NoError(c.t, err)
		}
		if line == "\r\n" {
			break
		}
	}
	noBody := bytes.HasPrefix(raw, []byte("HEAD")) || strings.Contains(head.String(), " 304 ")
	if !noBody {
		_, err = io.ReadFull(c.in, make([]byte, length))
		require.NoError(c.t, err)
	}
	return dates.ReplaceAllString(head.String(), "")
}
