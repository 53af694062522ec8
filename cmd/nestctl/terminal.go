package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/term"
)

const maxPassword = 4096 // bytes

// passwords says where the password of an encrypted file comes from: the first
// line of a file, or, with no file named, the terminal.
func passwords(ctx context.Context, file string) func(name string) ([]byte, error) {
	if file != "" {
		return func(string) ([]byte, error) { return passwordFile(file) }
	}
	return func(name string) ([]byte, error) {
		// Not standard input, from which the key may come.
		tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
		if err != nil {
			return nil, errors.New("there is no terminal to ask on: give it with --password-file")
		}
		defer func() { _ = tty.Close() }() // nothing is buffered
		return ask(ctx, tty, name)
	}
}

func passwordFile(path string) ([]byte, error) {
	data, err := readFile(path, maxPassword)
	if err != nil {
		return nil, err
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), nil
}

// ask asks on a terminal, without an echo. The terminal is as before when it
// returns, after Ctrl-C too, where the goroutine that reads is left to the end
// of the process: a terminal can't be told to stop reading.
func ask(ctx context.Context, tty *os.File, name string) ([]byte, error) {
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("look at terminal: %w", err)
	}
	if _, err := fmt.Fprintf(tty, "Password for %s: ", name); err != nil {
		return nil, fmt.Errorf("ask on terminal: %w", err)
	}
	type answer struct {
		password []byte
		err      error
	}
	got := make(chan answer, 1)
	go func() {
		p, err := term.ReadPassword(fd)
		got <- answer{p, err}
	}()
	select {
	case a := <-got:
		_, _ = fmt.Fprintln(tty) // the one that was typed has not been echoed
		if a.err != nil {
			return nil, fmt.Errorf("read terminal: %w", a.err)
		}
		return a.password, nil
	case <-ctx.Done():
		_ = term.Restore(fd, before) // it is on its way out
		return nil, errors.New("interrupted")
	}
}

// readFile reads a whole file that has at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // does not wait for somebody to write into a pipe
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	return readAll(path, f, limit)
}

func readAll(name string, r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", name, err)
	case int64(len(data)) > limit:
		return nil, fmt.Errorf("%s has more than %d bytes, too many for what it should be: is it the right file?", name, limit)
	}
	return data, nil
}
