package store

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// child starts this test binary in a mode of TestMain and returns its output.
// Closing stdin is how it is told to go.
func child(t *testing.T, mode, dir string) (*exec.Cmd, io.WriteCloser, *bufio.Scanner) {
	t.Helper()
	// Not beside parallel tests: until it has become another program, a child
	// holds a copy of every lock, and an Open at that moment finds it taken.
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "STORE_TEST_CHILD="+mode, "STORE_TEST_DIR="+dir)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	return cmd, stdin, bufio.NewScanner(stdout)
}

// childWrite writes for ever and prints the key of each acknowledged write.
func childWrite(dir string) {
	s, err := Open(context.Background(), Config{Dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var out sync.Mutex
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d/%d/%d", os.Getpid(), w, i)
				if _, err := s.Put(context.Background(), key, []byte(key)); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				out.Lock()
				fmt.Println(key)
				out.Unlock()
			}
		})
	}
	writers.Wait()
}

// childOpen holds the store open until stdin ends.
func childOpen(dir string) {
	s, err := Open(context.Background(), Config{Dir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := s.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func TestKillLosesNothing(t *testing.T) {
	cfg := inDir(t)
	var acknowledged []string
	// Uneven numbers stop the writers in different phases of etcd's batches.
	for _, lines := range []int{1, 50, 333, 1021} {
		cmd, _, out := child(t, "write", cfg.Dir)
		for i := 0; i < lines && out.Scan(); i++ {
			acknowledged = append(acknowledged, out.Text())
		}
		require.NoError(t, cmd.Process.Kill())
		for out.Scan() { // acknowledged before the kill, read after it
			if strings.Count(out.Text(), "/") == 2 {
				acknowledged = append(acknowledged, out.Text())
			}
		}
	}
	require.Greater(t, len(acknowledged), 1400)

	s := open(t, cfg)
	entries, err := s.List(t.Context(), "")
	require.NoError(t, err)
	stored := map[string]string{}
	for _, e := range entries {
		stored[e.Key] = string(e.Value)
	}
	last := acknowledged[len(acknowledged)-1]
	for _, key := range acknowledged[:len(acknowledged)-1] {
		require.Equal(t, key, stored[key])
	}
	// The very last line may be cut short by the kill.
	_, err = strconv.Atoi(last[strings.LastIndex(last, "/")+1:])
	require.NoError(t, err)
	put(t, s, "a", "1")
}

func TestSecondProcess(t *testing.T) {
	cfg := inDir(t)
	_, stdin, out := child(t, "open", cfg.Dir)
	require.True(t, out.Scan())
	require.Equal(t, "open", out.Text())

	start := time.Now()
	_, err := Open(t.Context(), cfg)
	require.ErrorContains(t, err, "in use by another process")
	require.ErrorContains(t, err, cfg.Dir)
	require.Less(t, time.Since(start), time.Second)

	require.NoError(t, stdin.Close())
	out.Scan()
	open(t, cfg)
	_, err = Open(t.Context(), cfg)
	require.ErrorContains(t, err, "in use", "the same process counts, too")
}

// TestReopenGrownStore crosses what a young store has not seen: snapshots of
// etcd's log and a second segment of it.
func TestReopenGrownStore(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 70 MB")
	}
	cfg := inDir(t)
	s := open(t, cfg)
	var writers sync.WaitGroup
	for w := range 100 {
		writers.Go(func() {
			for i := range 250 {
				// One key: other keys would share transactions, and etcd counts these.
				if _, err := s.Put(context.Background(), "same", fmt.Appendf(nil, "%d/%d", w, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	big := bytes.Repeat([]byte("x"), 1<<20)
	for range 70 {
		_, err := s.Put(t.Context(), "big", big)
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
	require.Contains(t, segment(t, cfg.Dir), "0000000000000001-")
	snapshots, err := filepath.Glob(filepath.Join(cfg.Dir, memberDir, "snap", "*.snap"))
	require.NoError(t, err)
	require.NotEmpty(t, snapshots)

	s = open(t, cfg)
	entries, err := s.List(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, entries, 2)
	put(t, s, "a", "1")
	require.NoError(t, s.Close())

	edit(t, filepath.Join(cfg.Dir, dbFile), func([]byte) []byte { return nil })
	_, err = Open(t.Context(), cfg)
	require.ErrorContains(t, err, "failed to recover v3 backend from snapshot")
}
