package httpboot

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/pki"
)

// imageURLs lets a URL with a token fetch images, and returns where an initrd is,
// plain and over TLS.
func (w *world) imageURLs() (plain, secure string) {
	w.who.give(pki.KindURL, "provider-a", chainToken, time.Time{}, "https", "http")
	path := "/chain/" + chainToken + "/ipxe/images/lab/initrd"
	return "http://" + w.plain + path, "https://boot.test" + path
}

func (w *world) serveImage(open func() (io.ReadSeeker, error), sum string) {
	w.server.Site.Image = func(string, string) (ImageFile, bool) { return ImageFile{SHA256: sum, Open: open}, true }
}

// TestImagesArriveWhole compares files of sizes around each boundary, by either
// way and from both kinds of sources.
func TestImagesArriveWhole(t *testing.T) {
	w := start(t)
	plain, secure := w.imageURLs()
	noise := bytes.Repeat([]byte("0123456789abcde"), (3<<20)/15)
	for _, size := range []int{0, 1, 511, 512, 513, piece - 1, piece, piece + 1, batch + 1, batch*2 + piece + 5, 1 << 20, 3<<20 - 7} {
		content := noise[:size]
		for name, open := range map[string]func() (io.ReadSeeker, error){
			"memory": func() (io.ReadSeeker, error) { return bytes.NewReader(content), nil },
			"disk":   func() (io.ReadSeeker, error) { return onDisk(content) },
		} {
			w.serveImage(open, digest(content))
			for url, c := range map[string]*http.Client{plain: w.plainClient(), secure: w.client(client{})} {
				a := w.do(c, http.MethodGet, url)
				require.Equal(t, digest(content), digest([]byte(a.body)), "%d bytes from %s by %s", size, name, url)
				if size > piece {
					a = w.do(c, http.MethodGet, url, "Range", fmt.Sprintf("bytes=%d-%d", piece/2, size-2))
					require.Equal(t, http.StatusPartialContent, a.status)
					require.Equal(t, digest(content[piece/2:size-1]), digest([]byte(a.body)), "a range of %d bytes from %s by %s", size, name, url)
				}
			}
		}
	}
}

// TestPartOfALargerFileIsServed has the section begin inside the file, and two
// readers of the same descriptor at a time.
func TestPartOfALargerFileIsServed(t *testing.T) {
	w := start(t)
	plain, _ := w.imageURLs()
	whole, err := onDisk(bigFile)
	require.NoError(t, err)
	part := bigFile[1000 : len(bigFile)-1000]
	w.serveImage(func() (io.ReadSeeker, error) {
		file, _, _ := whole.Outer()
		return io.NewSectionReader(file, 1000, int64(len(part))), nil
	}, digest(part))
	sums := make(chan string, 4)
	for range cap(sums) {
		go func() {
			h := sha256.New()
			res, err := http.Get(plain) //nolint:noctx // it ends with the server
			if err == nil {
				_, _ = io.Copy(h, res.Body)
				_ = res.Body.Close()
			}
			sums <- hex.EncodeToString(h.Sum(nil))
		}()
	}
	for range cap(sums) {
		require.Equal(t, digest(part), <-sums)
	}
}

// TestWhoLeavesLeavesNothingBehind aborts downloads in the middle: the event
// counts what was sent, and neither a goroutine nor a connection stays.
func TestWhoLeavesLeavesNothingBehind(t *testing.T) {
	w := start(t)
	w.server.Site.Image = func(string, string) (ImageFile, bool) { return bigImage(), true }
	plain, secure := w.imageURLs()
	for url, dial := range map[string]func() *http.Client{plain: w.plainClient, secure: func() *http.Client { return w.client(client{}) }} {
		told := w.count(boot.StageInitrd)
		for range 8 {
			c := dial()
			res, err := c.Get(url) //nolint:noctx // closed at once
			require.NoError(t, err)
			_, err = io.CopyN(io.Discard, res.Body, 1<<20)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
		}
		w.recorded(boot.StageInitrd, told+8, "each is recorded")
		e := w.event(boot.StageInitrd, "client-left")
		require.GreaterOrEqual(t, e.Bytes, int64(1<<20), url)
		require.Less(t, e.Bytes, int64(len(bigFile)), url)
		require.Eventually(t, func() bool { return w.server.Stats() == (Stats{}) && serving() == 0 }, 5*time.Second, time.Millisecond, "%s leaves nothing behind", url)
	}
}

// serving is how many goroutines serve a connection.
func serving() int {
	stacks := make([]byte, 1<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "net/http.(*conn).serve(")
}

// TestUnreadableFileIsAPassingFault reads what the kernel gives EIO for, and a
// file that became shorter. When it can be read again, it is served again.
func TestUnreadableFileIsAPassingFault(t *testing.T) {
	w := start(t)
	plain, secure := w.imageURLs()
	broken, err := os.Open("/proc/self/mem") // nothing is mapped at 0: EIO
	require.NoError(t, err)
	defer func() { require.NoError(t, broken.Close()) }()
	short := filepath.Join(t.TempDir(), "short")
	require.NoError(t, os.WriteFile(short, bigFile, 0o600))
	file, err := os.Open(short)
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	for url, c := range map[string]*http.Client{plain: w.plainClient(), secure: w.client(client{})} {
		w.serveImage(func() (io.ReadSeeker, error) { return io.NewSectionReader(broken, 0, 1<<20), nil }, "eio")
		a := w.do(c, http.MethodGet, url)
		require.Equal(t, http.StatusServiceUnavailable, a.status)
		require.Equal(t, "image-unreadable\n", a.body)
		require.Contains(t, w.event(boot.StageInitrd, "input/output error").Code, "image-unreadable")

		require.NoError(t, os.Truncate(short, 2<<20))
		w.serveImage(func() (io.ReadSeeker, error) { return io.NewSectionReader(file, 0, int64(len(bigFile))), nil }, "short")
		res, err := c.Get(url) //nolint:noctx // it ends early
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, res.Body)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "the client must not take a part for the whole")
		require.NoError(t, res.Body.Close())
		w.event(boot.StageInitrd, "unexpected EOF")
		w.mu.Lock()
		w.events = nil // the other way has to tell it too
		w.mu.Unlock()

		require.NoError(t, os.WriteFile(short, bigFile, 0o600))
		require.Equal(t, digest(bigFile), digest([]byte(w.do(c, http.MethodGet, url).body)), "it is served again")
	}
}

// TestPaceOfClients says until when a client has to have taken more.
func TestPaceOfClients(t *testing.T) {
	begun := time.Unix(1_000_000, 0)
	p := pace{begun, 4 << 10}
	for name, tt := range map[string]struct {
		after time.Duration
		taken int64
		want  time.Duration // after the beginning
	}{
		"at first it may stall":                  {0, 0, 60 * time.Second},
		"a stall does not count from the last":   {30 * time.Second, 1, 60 * time.Second},
		"one byte a minute is not enough":        {59 * time.Second, 2, 60 * time.Second},
		"who has taken much may stall":           {30 * time.Second, 100 << 20, 90 * time.Second},
		"but not for longer":                     {time.Hour, 100 << 20, time.Hour + time.Minute},
		"the average counts from the second on":  {70 * time.Second, 4 << 10 * 71, 71 * time.Second},
		"slow and steady, 5 KiB/s, goes on":      {time.Hour, 5 << 10 * 3600, time.Hour + time.Minute},
		"too slow, 3 KiB/s, has its time behind": {time.Hour, 3 << 10 * 3600, 45 * time.Minute},
	} {
		require.Equal(t, tt.want, p.deadline(begun.Add(tt.after), tt.taken).Sub(begun), name)
	}
}

// TestT07_WhoTakesTooLittleIsCutOff reads a byte now and then, under a rate that
// wants more, and a client that takes its time but enough goes on.
func TestT07_WhoTakesTooLittleIsCutOff(t *testing.T) {
	w := start(t)
	w.server.Site.Image = func(string, string) (ImageFile, bool) { return bigImage(), true }
	plain, _ := w.imageURLs()
	_, path, _ := strings.Cut(strings.TrimPrefix(plain, "http://"), "/")
	c, err := net.Dial("tcp", w.plain)
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	require.NoError(t, c.(*net.TCPConn).SetReadBuffer(4096))
	_, err = fmt.Fprintf(c, "GET /%s HTTP/1.1\r\nHost: boot.test\r\n\r\n", path)
	require.NoError(t, err)
	_, err = bufio.NewReaderSize(c, 16).ReadByte()
	require.NoError(t, err)
	var stuck *conn
	require.Eventually(t, func() bool { stuck = w.server.shown.any(); return stuck != nil }, time.Second, time.Millisecond)
	require.NoError(t, stuck.SetWriteDeadline(time.Now())) // as when its minute is over
	e := w.event(boot.StageInitrd, "too-slow")
	require.Contains(t, e.Error, "4000 bytes a second")
	require.Less(t, e.Bytes, int64(len(bigFile)))
}
