package lab

import (
	"bytes"
	"context"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTranscriptCleansLines(t *testing.T) {
	tests := []struct {
		name string
		raw  string
		want []string
	}{
		{"plain", "one\ntwo\r\n", []string{"one", "two"}},
		{"blank lines are dropped", "\r\n \n\x00\n", nil},
		{"last line without end", "iPXE> ", []string{"iPXE>"}},
		{"OVMF clears the screen", "\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe: loading\x1b[0m\n", []string{"BdsDxe: loading"}},
		{"OVMF moves the cursor", "100%\x1b[04;01HBdsDxe", []string{"100%", "BdsDxe"}},
		{"OVMF draws progress", "\r  Downloading...1%\r  Downloading...100%\n", []string{"  Downloading...100%"}},
		{"iPXE draws progress", "vmlinuz... [boot]\b\b\b\b\b\b      \b\b\b\b\b\bok\n", []string{"vmlinuz... ok"}},
		{"backspace at the margin", "\b\bx\n", []string{"x"}},
		{"tab, bell, broken UTF-8", "a\tb\x07\xff\xfec é\n", []string{"a b\ufffd\ufffdc é"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { require.Equal(t, tt.want, texts(tt.raw)) })
	}
}

func TestTranscriptBoundsLines(t *testing.T) {
	got := texts(strings.Repeat("x", maxLine+1) + "\ny\n")
	require.Len(t, got, 3)
	require.Len(t, got[0], maxLine)
	require.Equal(t, []string{"x", "y"}, got[1:])
}

func TestTranscriptLogsTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		tr := newTranscript(&log)
		time.Sleep(1250 * time.Millisecond)
		_, _ = tr.Write([]byte("late\n"))
		require.Equal(t, "    1.25 late\n", log.String())
		require.Equal(t, []Line{{At: 1250 * time.Millisecond, Text: "late"}}, tr.all())
	})
}

func TestWaitFor(t *testing.T) {
	marker := regexp.MustCompile(`^LAB-DONE rc=(\d+)$`)
	t.Run("written before", func(t *testing.T) {
		tr := newTranscript(io.Discard)
		_, _ = tr.Write([]byte("x\nLAB-DONE rc=0\n"))
		line, err := tr.waitFor(t.Context(), marker, false)
		require.NoError(t, err)
		require.Equal(t, "LAB-DONE rc=0", line.Text)
	})
	t.Run("written while waiting", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTranscript(io.Discard)
			got := make(chan Line)
			go func() {
				line, _ := tr.waitFor(t.Context(), marker, false)
				got <- line
			}()
			synctest.Wait()
			_, _ = tr.Write([]byte("not yet\n"))
			synctest.Wait()
			_, _ = tr.Write([]byte("LAB-DONE rc=2\n"))
			require.Equal(t, "LAB-DONE rc=2", (<-got).Text)
		})
	})
	t.Run("not ended yet", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTranscript(io.Discard)
			got := make(chan Line)
			go func() {
				line, _ := tr.waitFor(t.Context(), regexp.MustCompile("^initrd"), true)
				got <- line
			}()
			for _, piece := range []string{"kernel ok\nini", "trd... 4%\b\b"} {
				synctest.Wait()
				_, _ = tr.Write([]byte(piece))
			}
			require.Equal(t, "initrd... 4%", (<-got).Text)
			require.Len(t, tr.all(), 1, "it is no line yet")
		})
	})
	t.Run("ended without", func(t *testing.T) {
		tr := newTranscript(io.Discard)
		_, _ = tr.Write([]byte("Kernel panic"))
		tr.end()
		_, err := tr.waitFor(t.Context(), marker, false)
		require.ErrorIs(t, err, errEnded)
		require.ErrorContains(t, err, "Kernel panic")
	})
	t.Run("too late", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := newTranscript(io.Discard).waitFor(ctx, marker, false)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "printed nothing")
	})
}

// FuzzTranscript: whatever firmware prints, in whatever pieces it comes, the lines are the same, readable and bounded.
func FuzzTranscript(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte, cut int) {
		cut = min(max(cut, 0), len(raw))
		whole := texts(string(raw))
		require.Equal(t, whole, texts(string(raw[:cut]), string(raw[cut:])))
		for _, text := range whole {
			require.NotEmpty(t, text)
			require.NotContains(t, text, "\x1b")
			require.NotContains(t, text, "\n")
		}
	})
}

func texts(pieces ...string) []string {
	tr := newTranscript(io.Discard)
	for _, p := range pieces {
		_, _ = tr.Write([]byte(p))
	}
	tr.end()
	var list []string
	for _, line := range tr.all() {
		list = append(list, line.Text)
	}
	return list
}
