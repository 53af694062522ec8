package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// terminal is a pseudo-terminal: what is typed at one end is read at the other.
func terminal(t *testing.T) (keyboard, tty *os.File) {
	t.Helper()
	keyboard, tty, err := pty.Open()
	require.NoError(t, err)
	t.Cleanup(func() { _ = keyboard.Close(); _ = tty.Close() })
	return keyboard, tty
}

// prompt reads what the terminal shows up to the end of a prompt.
func prompt(t *testing.T, screen *bufio.Reader) string {
	t.Helper()
	s, err := screen.ReadString(':')
	require.NoError(t, err)
	return s
}

// echoes tells whether the terminal shows what is typed.
func echoes(t *testing.T, tty *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	require.NoError(t, err)
	return state.Lflag&unix.ECHO != 0
}

func TestAskDoesNotEcho(t *testing.T) {
	keyboard, tty := terminal(t)
	before, err := term.GetState(int(tty.Fd()))
	require.NoError(t, err)
	type answer struct {
		password []byte
		err      error
	}
	got := make(chan answer, 1)
	go func() {
		p, err := ask(t.Context(), tty, "rack1.key")
		_, _ = io.WriteString(tty, "done:")
		got <- answer{p, err}
	}()
	screen := bufio.NewReader(keyboard)
	require.Equal(t, "Password for rack1.key:", prompt(t, screen))
	for echoes(t, tty) { // it asks first and turns the echo off then
	}
	_, err = io.WriteString(keyboard, "correct horse\n")
	require.NoError(t, err)
	require.Equal(t, " \r\ndone:", prompt(t, screen), "the password is not on the screen")
	a := <-got
	require.NoError(t, a.err)
	require.Equal(t, "correct horse", string(a.password))
	after, err := term.GetState(int(tty.Fd()))
	require.NoError(t, err)
	require.Equal(t, before, after)
}

func TestAskIsInterrupted(t *testing.T) {
	keyboard, tty := terminal(t)
	before, err := term.GetState(int(tty.Fd()))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() {
		_, err := ask(ctx, tty, "rack1.key")
		got <- err
	}()
	prompt(t, bufio.NewReader(keyboard))
	for echoes(t, tty) {
	}
	cancel()
	require.ErrorContains(t, <-got, "interrupted")
	after, err := term.GetState(int(tty.Fd()))
	require.NoError(t, err)
	require.Equal(t, before, after, "the shell behind must have its echo back")
	_, err = io.WriteString(keyboard, "\n") // ends the reader
	require.NoError(t, err)
}

func TestPasswordFile(t *testing.T) {
	dir := t.TempDir()
	for content, want := range map[string]string{"": "", "secret": "secret", "secret\nmore\n": "secret", "secret\r\n": "secret", " a b \n": " a b "} {
		path := filepath.Join(dir, "password")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		got, err := passwords(t.Context(), path)("rack1.key")
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	_, err := passwords(t.Context(), filepath.Join(dir, "none"))("rack1.key")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestReadFileIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("x", 11)), 0o600))
	_, err := readFile(path, 10)
	require.ErrorContains(t, err, "more than 10 bytes")
	data, err := readFile(path, 11)
	require.NoError(t, err)
	require.Len(t, data, 11)
}
