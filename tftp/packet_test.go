package tftp

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseAnswer(t *testing.T) {
	tests := map[string]struct {
		packet []byte
		want   answer
		ok     bool
	}{
		"ack":                {[]byte{0, 4, 1, 2}, answer{op: opACK, number: 0x102}, true},
		"ack with padding":   {[]byte{0, 4, 0, 2, 0, 0}, answer{op: opACK, number: 2}, true},
		"error":              {[]byte("\x00\x05\x00\x08gone\x00"), answer{op: opERROR, number: 8, text: "gone"}, true},
		"error without end":  {[]byte("\x00\x05\x00\x08gone"), answer{op: opERROR, number: 8, text: "gone"}, true},
		"error without text": {[]byte{0, 5, 0, 0}, answer{op: opERROR}, true},
		"error with escape":  {[]byte("\x00\x05\x00\x00a\n\x1b\xffb\x00"), answer{op: opERROR, text: "a???b"}, true},
		"short":              {[]byte{0, 4, 1}, answer{}, false},
		"empty":              {nil, answer{}, false},
		"data":               {[]byte{0, 3, 0, 1}, answer{}, false},
		"request":            {rrq("a", "octet"), answer{}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := parseAnswer(tt.packet)
			require.Equal(t, tt.ok, ok)
			require.Equal(t, tt.want, got)
		})
	}
}

func TestErrorPacket(t *testing.T) {
	tests := map[string]struct {
		err  error
		want string
	}{
		"not found":    {fmt.Errorf("open /srv/secret: %w", fs.ErrNotExist), "\x00\x05\x00\x01file not found\x00"},
		"permission":   {fmt.Errorf("open /srv/secret: %w", fs.ErrPermission), "\x00\x05\x00\x02access violation\x00"},
		"refusal":      {fmt.Errorf("x: %w", &Refusal{Code: 2, Message: "set expose_key_over"}), "\x00\x05\x00\x02set expose_key_over\x00"},
		"both":         {errors.Join(fs.ErrNotExist, &Refusal{Code: 0, Message: "m"}), "\x00\x05\x00\x00m\x00"},
		"anything":     {errors.New("database password is 1234"), "\x00\x05\x00\x00internal error\x00"},
		"unprintable":  {&Refusal{Code: 1, Message: "a\x00b\nü"}, "\x00\x05\x00\x01a?b???\x00"},
		"long message": {&Refusal{Code: 1, Message: strings.Repeat("x", 500)}, "\x00\x05\x00\x01" + strings.Repeat("x", 120) + "\x00"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tt.want, string(errorPacket(refusalOf(tt.err))))
		})
	}
}

// FuzzParseAnswer reads what a client, or anybody, sends to a transfer.
func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte{0, 4, 0, 2})
	f.Add([]byte("\x00\x05\x00\x08User aborted\x00"))
	f.Fuzz(func(t *testing.T, p []byte) {
		a, ok := parseAnswer(p)
		if len(a.text) > maxMessage || printable(a.text) != a.text {
			t.Fatalf("text %q", a.text)
		}
		if ok != (len(p) >= headerSize && p[0] == 0 && (p[1] == opACK || p[1] == opERROR)) {
			t.Fatalf("% x: %v", p, ok)
		}
	})
}

// FuzzAck feeds one foreign datagram to a running transfer.
func FuzzAck(f *testing.F) {
	f.Add([]byte{0, 4, 0, 2}, true)
	f.Add([]byte{0, 4, 0xff, 0xff}, false)
	f.Add([]byte("\x00\x05\x00\x08User aborted\x00"), true)
	file := content(100 * 512)
	f.Fuzz(func(t *testing.T, p []byte, oack bool) {
		if a, ok := parseAnswer(p); ok && (len(a.text) > maxMessage || printable(a.text) != a.text) {
			t.Fatalf("text %q", a.text)
		}
		tm := terms{block: 512, window: 1}
		if oack {
			tm = terms{block: 512, window: 4, oack: packet(opOACK, "windowsize", "4")}
		}
		w := &scripted{answers: [][]byte{p}}
		s := newLoop(w, section(file), tm, new(bufferPool), func() {})
		err := s.run(t.Context())
		if err == nil {
			t.Fatal("done after one answer")
		}
		if s.acked < -1 || s.acked > s.sent || s.sent > s.high || s.high > s.last {
			t.Fatalf("acked %d, sent %d, high %d of %d", s.acked, s.sent, s.high, s.last)
		}
		if first := w.sent[0]; len(w.sent) > 1 && !s.answered && !bytes.Equal(first, w.sent[1]) {
			t.Fatal("an unanswered request drew two different datagrams")
		}
	})
}
