package pki

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nestboot/nestboot/store"
	"github.com/stretchr/testify/require"
)

// TestT22_RestartBetweenSteps reopens the store before each step and looks at
// what a grant is worth after each: redeemable or burned, never both.
func TestT22_RestartBetweenSteps(t *testing.T) {
	dir, c := t.TempDir(), &clock{now: start}
	s := openStore(t, dir)
	p := &player{clock: c, name: "b"}
	for _, step := range []step{
		{"open", 1, ""},
		{"mint", 1, ""},
		{"redeem", 7, ""},
		{"redeem", 8, CodeGrantOtherAddress},
		{"mintdone", 0, ""},
		{"redeem", 7, ""},
		{"done", 0, ""},
		{"done", 0, "done"},
		{"redeem", 7, CodeGrantBurned},
		{"mint", 1, CodeGrantBurned},
	} {
		require.NoError(t, s.Close())
		s = openStore(t, dir)
		p.g = openGrants(t, s, c)
		require.Equal(t, step.want, p.step(t, step.name, step.arg), step.name)
	}
}

// TestMain turns the test binary into a server that gets killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("PKI_TEST_STORE"); dir != "" {
		if err := bootUntilKilled(dir, os.Getenv("PKI_TEST_STEP")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// bootUntilKilled takes a boot to the named step, prints the grant and the done
// token, and then hangs. Without a step it boots for ever.
func bootUntilKilled(dir, last string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{Dir: dir, Reserve: 1})
	if err != nil {
		return err
	}
	g, err := OpenGrants(ctx, s, nil, (&clock{now: start}).Now)
	if err != nil {
		return err
	}
	if last == "" {
		return bootForever(ctx, g)
	}
	var grant, done Token
	steps := map[string]func() error{
		"open":     func() error { return g.Open(ctx, "b", "m", "node1", [32]byte{1}) },
		"mint":     func() error { grant, _, err = g.Mint(ctx, "b", [32]byte{1}); return err },
		"redeem":   func() error { _, err := g.Redeem(ctx, grant, testAddr(7)); return err },
		"mintdone": func() error { done, err = g.MintDone(ctx, "b"); return err },
		"done":     func() error { _, err := g.Done(ctx, done); return err },
	}
	for _, name := range []string{"open", "mint", "redeem", "mintdone", "done"} {
		if err := steps[name](); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if name == last {
			break
		}
	}
	fmt.Printf("%s %s\n", grant.Encode(), done.Encode())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func TestT22_KilledAfterEachStep(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a process per step")
	}
	tests := []struct{ step, redeemed, other, done string }{
		{"mint", "", CodeGrantOtherAddress, ""},
		{"redeem", "", CodeGrantOtherAddress, ""},
		{"mintdone", "", CodeGrantOtherAddress, ""},
		{"done", CodeGrantBurned, CodeGrantBurned, "done"},
	}
	for _, tt := range tests {
		t.Run(tt.step, func(t *testing.T) {
			dir := t.TempDir()
			line := killAfter(t, dir, tt.step)
			first, second, _ := strings.Cut(line, " ")
			grant, err := ParseToken(first)
			require.NoError(t, err)
			c := &clock{now: start.Add(time.Minute)}
			g := openGrants(t, openStore(t, dir), c)
			_, err = g.Redeem(t.Context(), grant, testAddr(7))
			require.Equal(t, tt.redeemed, code(t, err))
			_, err = g.Redeem(t.Context(), grant, testAddr(8))
			require.Equal(t, tt.other, code(t, err))
			if done, err := ParseToken(second); err == nil {
				_, err = g.Done(t.Context(), done)
				require.Equal(t, tt.done, code(t, err))
				_, err = g.Redeem(t.Context(), grant, testAddr(7))
				require.Equal(t, CodeGrantBurned, code(t, err))
			}
		})
	}
}

// killAfter runs bootUntilKilled, kills it with SIGKILL once it has printed,
// and returns what it printed.
func killAfter(t *testing.T, dir, step string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PKI_TEST_STORE="+dir, "PKI_TEST_STEP="+step)
	hold, err := cmd.StdinPipe()
	require.NoError(t, err)
	defer func() { _ = hold.Close() }()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait() // says that it was killed
	require.NoError(t, err, line)
	return strings.TrimSpace(line)
}
