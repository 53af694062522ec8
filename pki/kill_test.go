package pki

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// bootForever boots machine after machine, each twice, and says what it is
// about to do with a boot and what it has done.
func bootForever(ctx context.Context, g *Grants) error {
	for n := 0; ; n++ {
		machine := fmt.Sprintf("%d-%d", os.Getpid(), n)
		for _, boot := range []string{machine + "-a", machine + "-b"} {
			if err := bootAloud(ctx, g, boot, machine); err != nil {
				return fmt.Errorf("boot %s: %w", boot, err)
			}
		}
	}
}

// bootAloud ends the first boot of a machine after its configuration was
// fetched: the second one burns it.
func bootAloud(ctx context.Context, g *Grants, boot, machine string) error {
	var grant, done Token
	steps := []struct {
		name, doing string
		do          func() (told string, err error)
	}{
		{"opened", "opening", func() (string, error) { return "", g.Open(ctx, boot, machine, "node1", [32]byte{1}) }},
		{"minted", "minting", func() (told string, err error) {
			grant, _, err = g.Mint(ctx, boot, [32]byte{1})
			return grant.Encode(), err
		}},
		{"redeemed", "redeeming", func() (string, error) { _, err := g.Redeem(ctx, grant, testAddr(7)); return "", err }},
		{"promised", "promising", func() (told string, err error) { done, err = g.MintDone(ctx, boot); return done.Encode(), err }},
		{"done", "finishing", func() (string, error) { _, err := g.Done(ctx, done); return "", err }},
	}
	for _, s := range steps {
		if s.name == "done" && strings.HasSuffix(boot, "-a") {
			return nil
		}
		fmt.Println(s.doing, boot)
		told, err := s.do()
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Println(s.name, boot, told)
	}
	return nil
}

// killedBoot is what was heard of a boot.
type killedBoot struct {
	last        string
	grant, done string
}

// listen notes what a child says until it has been killed after so many lines.
func listen(t *testing.T, dir string, lines int, heard map[string]*killedBoot) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PKI_TEST_STORE="+dir, "PKI_TEST_STEP=")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	in := bufio.NewScanner(out)
	for n := 0; in.Scan(); n++ {
		if n == lines {
			require.NoError(t, cmd.Process.Kill())
		}
		words := strings.Fields(in.Text())
		require.GreaterOrEqual(t, len(words), 2, in.Text())
		b := heard[words[1]]
		if b == nil {
			b = &killedBoot{}
			heard[words[1]] = b
		}
		switch b.last = words[0]; b.last {
		case "minted":
			b.grant = words[2]
		case "promised":
			b.done = words[2]
		}
	}
	require.Error(t, cmd.Wait(), "it was killed")
}

// TestT22_KilledAtAnyTime: what was acknowledged is so afterwards, and a grant
// whose end was under way is redeemable or burned, never both.
func TestT22_KilledAtAnyTime(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes")
	}
	dir := t.TempDir()
	heard := map[string]*killedBoot{}
	// At each step of a machine's two boots, and in different phases of etcd's
	// batches.
	for lines := range 20 {
		listen(t, dir, lines, heard)
	}
	for _, lines := range []int{99, 301} {
		listen(t, dir, lines, heard)
	}
	require.Greater(t, len(heard), 60)
	g := openGrants(t, openStore(t, dir), &clock{now: start.Add(time.Minute)})
	for boot, b := range heard {
		t.Run(boot, func(t *testing.T) { afterKill(t, g, boot, b, heard) })
	}
}

func afterKill(t *testing.T, g *Grants, boot string, b *killedBoot, heard map[string]*killedBoot) {
	next := heard[strings.TrimSuffix(boot, "-a")+"-b"]
	superseded := strings.HasSuffix(boot, "-a") && next != nil
	if superseded && next.last == "opening" { // in doubt
		_, err := g.Done(t.Context(), Token{Boot: strings.TrimSuffix(boot, "-a") + "-b", Secret: NewSecret()})
		require.Equal(t, CodeGrantUnknown, code(t, err))
		_, known := g.ledger.find(strings.TrimSuffix(boot, "-a") + "-b")
		superseded = known
	}
	if b.grant == "" {
		return // nobody can have it
	}
	grant, err := ParseToken(b.grant)
	require.NoError(t, err)
	if b.last == "minted" || b.last == "redeeming" {
		require.False(t, superseded)
	}
	_, err = g.Redeem(t.Context(), grant, testAddr(7))
	redeemed := code(t, err)
	finished := ""
	if b.done != "" {
		done, err := ParseToken(b.done)
		require.NoError(t, err)
		_, err = g.Done(t.Context(), done)
		finished = code(t, err)
	}
	switch {
	case superseded:
		require.Equal(t, CodeGrantBurned, redeemed)
		require.Equal(t, CodeGrantBurned, finished)
	case b.last == "done":
		require.Equal(t, CodeGrantBurned, redeemed)
		require.Equal(t, "done", finished)
	case b.last == "finishing" && redeemed != "":
		require.Equal(t, CodeGrantBurned, redeemed, "it was burned")
		require.Equal(t, "done", finished)
	default:
		require.Empty(t, redeemed, "it was not burned")
		require.Empty(t, finished)
	}
	if b.done != "" {
		_, err = g.Redeem(t.Context(), grant, testAddr(7))
		require.Equal(t, CodeGrantBurned, code(t, err))
		_, err = g.Redeem(t.Context(), grant, testAddr(8))
		require.Equal(t, CodeGrantBurned, code(t, err))
	}
}
