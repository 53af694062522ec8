package links

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

// TestMain turns the test binary into a server that gets killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("LINKS_TEST_DIR"); dir != "" {
		if err := serveUntilKilled(dir, os.Getenv("LINKS_TEST_STEP")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func serveUntilKilled(dir, step string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{Dir: filepath.Join(dir, "store"), Reserve: enough})
	if err != nil {
		return err
	}
	l, err := Open(ctx, Config{Store: s, Path: filepath.Join(dir, "links.secret"), Now: func() time.Time { return start }})
	if err != nil {
		return err
	}
	if step == "" {
		return makeAndRevoke(ctx, l)
	}
	return hangAt(ctx, l, step)
}

// hangAt revokes the first link and makes another one, up to the named step.
func hangAt(ctx context.Context, l *Links, step string) error {
	l.steps = func(name string) {
		if name == step {
			fmt.Println(name)
			_, _ = io.Copy(io.Discard, os.Stdin)
		}
	}
	if _, err := l.Revoke(ctx, Chain, 1); err != nil {
		return err
	}
	_, err := l.Create(ctx, Spec{Kind: Chain, Name: "second"})
	return err
}

// makeAndRevoke makes links for ever, revokes every second one, and says what it
// is about to do and what it has done.
func makeAndRevoke(ctx context.Context, l *Links) error {
	for n := 0; ; n++ {
		name := fmt.Sprintf("%d-%d", os.Getpid(), n)
		fmt.Println("making", name)
		link, err := l.Create(ctx, Spec{Kind: Chain, Name: name})
		if err != nil {
			return err
		}
		fmt.Println("made", name, l.Token(link).Encode())
		l.Used(Chain, link.ID, uuidA, start)
		if err := l.flushUses(ctx); err != nil {
			return err
		}
		if n%2 == 1 {
			fmt.Println("ending", name)
			if _, err := l.Revoke(ctx, Chain, link.ID); err != nil {
				return err
			}
			fmt.Println("ended", name)
		}
	}
}

// child starts this test binary as a server.
func child(t *testing.T, dir, step string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LINKS_TEST_DIR="+dir, "LINKS_TEST_STEP="+step)
	cmd.Stderr = os.Stderr
	_, err := cmd.StdinPipe() // it ends with us
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	return cmd, bufio.NewScanner(out)
}

// oneOrOther asks everything about a link, twice and with a restart between: it
// is good or it is not, and nothing says otherwise.
func (w *world) oneOrOther(t *testing.T, name, token string) (good bool) {
	t.Helper()
	var answers [2]bool
	for n := range answers {
		l := w.open()
		id, _, err := l.Find(Chain, token, HTTPS, start)
		good = err == nil
		answers[n] = good
		if good {
			require.Equal(t, name, id.Name)
			require.NoError(t, l.Good(id, start))
		} else {
			require.Equal(t, pki.CodeRevoked, code(t, err))
		}
		var listed []string
		for _, link := range l.List(Chain) {
			if link.Name == name {
				listed = append(listed, l.Token(link).Encode())
			}
		}
		if good {
			require.Equal(t, []string{token}, listed)
		} else {
			require.Empty(t, listed)
		}
		steps := l.Explain(token, start)
		require.Equal(t, good, steps[len(steps)-1].Code == "")
		w.reopen(enough)
	}
	require.Equal(t, answers[0], answers[1])
	return good
}

// TestT22_KilledAtEachStep: a link is good or dead after a kill between any two
// steps, never both, and what was not acknowledged leaves nothing half done.
func TestT22_KilledAtEachStep(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a process per step")
	}
	for _, tt := range []struct {
		step          string
		first, second bool // are they good afterwards?
	}{
		{"condemned", true, false},
		{"revoking", true, false},
		{"revoked", false, false},
		{"creating", false, false},
		{"created", false, true},
	} {
		t.Run(tt.step, func(t *testing.T) {
			w := newWorld(t)
			_, token := create(t, w.open(), Spec{Kind: Chain, Name: "first"})
			require.NoError(t, w.store.Close())
			cmd, out := child(t, w.dir, tt.step)
			require.True(t, out.Scan())
			require.Equal(t, tt.step, out.Text())
			require.NoError(t, cmd.Process.Kill())
			_ = cmd.Wait() // says that it was killed
			w.restart()

			require.Equal(t, tt.first, w.oneOrOther(t, "first", token))
			l := w.open()
			second := ""
			for _, link := range l.List(Chain) {
				if link.Name == "second" {
					second = l.Token(link).Encode()
				}
			}
			require.Equal(t, tt.second, second != "")
			if second != "" {
				require.True(t, w.oneOrOther(t, "second", second))
				l = w.open()
			}
			next, _ := create(t, l, Spec{Kind: Chain, Name: "third"})
			want := int64(2)
			if tt.second {
				want = 3
			}
			require.Equal(t, want, next.ID)
		})
	}
}

// restart opens the store that another process had.
func (w *world) restart() {
	w.t.Helper()
	w.store = nil
	w.reopen(enough)
}

// TestT22_KilledAtAnyTime: what was acknowledged is so afterwards, and what was
// under way is one or the other.
func TestT22_KilledAtAnyTime(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes")
	}
	w := newWorld(t)
	require.NoError(t, w.store.Close())
	tokens := map[string]string{}                           // by name
	said := map[string]string{}                             // the last word about each
	for _, lines := range []int{1, 2, 5, 8, 99, 203, 318} { // in different phases of etcd's batches
		cmd, out := child(t, w.dir, "")
		for n := 0; out.Scan(); n++ {
			if n == lines {
				require.NoError(t, cmd.Process.Kill())
			}
			words := strings.Fields(out.Text())
			if len(words) < 2 || words[0] == "made" && (len(words) != 3 || len(words[2]) != 43) {
				continue // cut short by the kill
			}
			said[words[1]] = words[0]
			if words[0] == "made" {
				tokens[words[1]] = words[2]
			}
		}
		require.Error(t, cmd.Wait())
	}
	require.Greater(t, len(said), 150)
	w.restart()
	l := w.open()
	good := map[string]string{}
	for _, link := range l.List(Chain) {
		require.NotContains(t, good, link.Name)
		good[link.Name] = l.Token(link).Encode()
		require.Empty(t, found(t, l, Chain, good[link.Name], HTTPS, start))
	}
	inDoubt := 0
	for name, word := range said {
		switch word {
		case "made":
			require.Equal(t, tokens[name], good[name])
		case "ended":
			require.NotContains(t, good, name)
			require.Equal(t, pki.CodeRevoked, found(t, l, Chain, tokens[name], HTTPS, start))
		case "making":
			inDoubt++
		case "ending":
			inDoubt++
			w.oneOrOther(t, name, tokens[name])
			l = w.open()
		}
		delete(good, name)
	}
	require.Empty(t, good, "nothing that nobody asked for")
	require.LessOrEqual(t, inDoubt, 7)
}
