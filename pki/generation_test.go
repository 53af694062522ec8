package pki

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/store"
)

// TestStateWithOneRootOpensAsGeneration1: testdata/one-root is what bootd kept
// before there were generations.
func TestStateWithOneRootOpensAsGeneration1(t *testing.T) {
	before := os.DirFS("testdata/one-root")
	text, err := fs.ReadFile(before, "store.json")
	require.NoError(t, err)
	entries := map[string]string{}
	require.NoError(t, json.Unmarshal(text, &entries))
	s := openStore(t, t.TempDir())
	for key, value := range entries {
		_, err := s.Put(t.Context(), key, []byte(value))
		require.NoError(t, err)
	}
	c := &clock{now: start.Add(24 * time.Hour)}
	cfg := Config{
		Dir: filepath.Join(t.TempDir(), "pki"), Store: s, Now: c.Now,
		Hosts: []string{"boot.example.net", "ipxe.example.net"}, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
	}
	require.NoError(t, os.Mkdir(cfg.Dir, 0o700))
	files := []string{"root.key", "root.pem", "intermediate.key", "intermediate.pem", "server.key", "server.pem"}
	for _, name := range files {
		data, err := fs.ReadFile(before, name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, name), data, 0o600))
	}
	machine, err := keyDir{dir: "testdata/one-root"}.readCert("rack1")
	require.NoError(t, err)
	root, err := keyDir{dir: "testdata/one-root"}.readCert("root")
	require.NoError(t, err)
	server, err := keyDir{dir: "testdata/one-root"}.readCert("server")
	require.NoError(t, err)

	for range 2 { // the second start finds the record of the first
		a := openAuthority(t, cfg)
		all := a.Generations()
		require.Len(t, all, 1)
		require.Equal(t, Generation{
			Number: 1, Host: "ipxe.example.net", Root: root, Intermediate: newest(a).intermediate, Created: start, Newest: true, Source: SourceOwn,
		}, all[0])
		require.True(t, a.Trust(1).Equal(root))
		require.True(t, a.ServerCertificate().Leaf.Equal(server), "the server certificate is kept")
		require.Len(t, a.Leafs(1), 2, "and has one of P-256 beside it")
		id, err := a.Verify([]*x509.Certificate{machine}, c.Now())
		require.NoError(t, err)
		require.Equal(t, 1, id.Generation)
		require.Equal(t, 1, a.GenerationOf(machine))
		states := map[string]string{}
		for _, i := range a.Issued() {
			states[i.Set] = i.State
			require.Equal(t, 1, i.Generation)
		}
		require.Equal(t, map[string]string{"rack1": StateActive, "rack2": StateRevoked}, states)
		require.Error(t, a.SetTrust(t.Context(), 1, server), "sets carry the root")
	}
	a := openAuthority(t, cfg)
	_, err = a.RotateRoot(t.Context())
	require.NoError(t, err)
	require.NoError(t, a.Drop(t.Context(), 1))
	_, err = a.Verify([]*x509.Certificate{machine}, c.Now())
	require.Equal(t, CodeRevoked, refusal(t, err).Code)
}

func TestHostOf(t *testing.T) {
	for _, tt := range []struct {
		first  string
		number int
		want   string
	}{
		{"ipxe.example.net", 1, "ipxe.example.net"},
		{"ipxe.example.net", 2, "ipxe-2.example.net"},
		{"ipxe.example.net", 10, "ipxe-10.example.net"},
		{"ipxe", 3, "ipxe-3"},
		{"", 2, ""},
	} {
		require.Equal(t, tt.want, hostOf(tt.first, tt.number))
	}
}

// clientTrusts reports whether a client that trusts roots alone would accept a
// server certificate under a name.
func clientTrusts(c *tls.Certificate, host string, at time.Time, roots ...*x509.Certificate) error {
	pool, rest := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	for _, der := range c.Certificate[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		rest.AddCert(cert)
	}
	_, err := c.Leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: rest, DNSName: host, CurrentTime: at})
	return err
}

func issue(t testing.TB, a *Authority, set string) *x509.Certificate {
	t.Helper()
	m, err := a.IssueMachine(t.Context(), set, time.Time{})
	require.NoError(t, err)
	return m.Certificate
}

func verifies(a *Authority, cert *x509.Certificate) error {
	_, err := a.Verify([]*x509.Certificate{cert}, a.now())
	return err
}

// TestGenerations takes an authority from its first to its third root.
func TestGenerations(t *testing.T) {
	cfg, c := testConfig(t)
	a := openAuthority(t, cfg)
	certs := []*x509.Certificate{issue(t, a, "rack1")}
	for n := 2; n <= 3; n++ {
		changed := a.Changed()
		g, err := a.RotateRoot(t.Context())
		require.NoError(t, err)
		require.Equal(t, n, g.Number)
		require.Equal(t, fmt.Sprintf("ipxe-%d.example.net", n), g.Host)
		require.True(t, g.Newest)
		<-changed
		certs = append(certs, issue(t, a, "rack1"))
	}
	for range 2 { // as it is, and after a restart
		var roots []*x509.Certificate
		for i, g := range a.Generations() {
			require.Equal(t, i+1, g.Number)
			require.Equal(t, g.Number == 3, g.Newest)
			require.True(t, a.Trust(g.Number).Equal(g.Root))
			id, err := a.Verify([]*x509.Certificate{certs[i]}, c.Now())
			require.NoError(t, err, "certificates of all generations are good")
			require.Equal(t, g.Number, id.Generation)
			roots = append(roots, g.Root)
			leafs := a.Leafs(g.Number)
			require.Len(t, leafs, 2)
			require.Equal(t, []bool{true, false}, []bool{isEC(leafs[0].Leaf.PublicKey), isEC(leafs[1].Leaf.PublicKey)})
			for _, leaf := range leafs {
				require.Equal(t, []string{"boot.example.net", g.Host}, leaf.Leaf.DNSNames)
				require.NoError(t, clientTrusts(leaf, g.Host, c.Now(), g.Root))
				require.Equal(t, [][]byte{leaf.Leaf.Raw, g.Intermediate.Raw, g.Root.Raw}, leaf.Certificate)
			}
			for _, other := range roots[:i] {
				require.Error(t, clientTrusts(leafs[0], g.Host, c.Now(), other), "an old root does not vouch for a new generation's name")
			}
		}
		require.True(t, a.Root().Equal(roots[2]))
		for _, leaf := range a.Leafs(0) {
			for _, root := range roots {
				require.NoError(t, clientTrusts(leaf, "boot.example.net", c.Now(), root), "boot. is for clients of any generation")
			}
		}
		a = openAuthority(t, cfg)
	}
	require.Nil(t, a.Leafs(4))
	require.Nil(t, a.Trust(4))

	require.NoError(t, a.Drop(t.Context(), 2), "in any order")
	roots := []*x509.Certificate{a.Generations()[0].Root, a.Generations()[1].Root}
	for _, root := range roots {
		require.NoError(t, clientTrusts(a.Leafs(0)[0], "boot.example.net", c.Now(), root))
	}
	require.NoError(t, a.Drop(t.Context(), 1))
	require.Len(t, a.Leafs(0)[0].Certificate, 3, "boot. has the newest certificate now")
	require.NoError(t, clientTrusts(a.Leafs(0)[0], "boot.example.net", c.Now(), roots[1]))
	require.ErrorContains(t, a.Drop(t.Context(), 3), "it is the newest")
	require.ErrorIs(t, a.Drop(t.Context(), 9), ErrUnknownGeneration)
}

// TestFirmwareAcceptsTheSharedChain: firmware verifies by OpenSSL, which takes
// the first issuer that fits.
func TestFirmwareAcceptsTheSharedChain(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip("openssl is not installed")
	}
	require.NoError(t, err)
	cfg, _ := testConfig(t)
	a := openAuthority(t, cfg)
	_, err = a.RotateRoot(t.Context())
	require.NoError(t, err)
	dir := keyDir{dir: t.TempDir()}
	var rest []*x509.Certificate
	shared := a.Leafs(0)[1]
	for _, der := range shared.Certificate[1:] {
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		rest = append(rest, cert)
	}
	require.NoError(t, dir.writeCerts("leaf", shared.Leaf))
	require.NoError(t, dir.writeCerts("rest", rest...))
	old, both := a.Generations()[0].Root, []*x509.Certificate{a.Generations()[1].Root, a.Generations()[0].Root}
	require.NoError(t, dir.writeCerts("old", old))
	require.NoError(t, dir.writeCerts("both", both...))
	for _, trust := range []string{"old", "both"} {
		out, err := exec.CommandContext(t.Context(), openssl, "verify", "-attime", fmt.Sprint(start.Unix()), "-purpose", "sslserver",
			"-CAfile", dir.path(trust+".pem"), "-untrusted", dir.path("rest.pem"), dir.path("leaf.pem")).CombinedOutput()
		require.NoError(t, err, "%s: %s", trust, out)
	}
}

func TestLivingGenerationsAreBounded(t *testing.T) {
	cfg, _ := testConfig(t)
	a := openAuthority(t, cfg)
	g := newest(a)
	for n := 2; n <= maxLiving; n++ {
		next := *g
		next.number = n
		a.publish(&next)
	}
	_, err := a.RotateRoot(t.Context())
	require.ErrorContains(t, err, "nestctl ca drop 1")
	a.ipxe = ""
	_, err = a.RotateRoot(t.Context())
	require.ErrorContains(t, err, "no host name for iPXE")
}

func TestSetTrust(t *testing.T) {
	cfg, _ := testConfig(t)
	a := openAuthority(t, cfg)
	customer, err := plainDir(t.TempDir()).ensureIssuers(1, start)
	require.NoError(t, err)
	own, given := a.Root(), customer.root.cert
	require.NoError(t, a.SetTrust(t.Context(), 1, given))
	require.True(t, a.Trust(1).Equal(given))
	require.Equal(t, [32]byte(fingerprintOf(given)), a.RootFingerprint())
	a = openAuthority(t, cfg)
	require.True(t, a.Trust(1).Equal(given))
	require.True(t, a.Generations()[0].Root.Equal(own))
	require.NoError(t, a.SetTrust(t.Context(), 1, own), "no artifact carries it yet")
	require.NoError(t, a.SetTrust(t.Context(), 1, given))

	require.NoError(t, a.FixTrust(t.Context(), 1))
	require.NoError(t, a.SetTrust(t.Context(), 1, given))
	err = a.SetTrust(t.Context(), 1, own)
	require.ErrorContains(t, err, "nestctl ca rotate --root")
	require.ErrorContains(t, openAuthority(t, cfg).SetTrust(t.Context(), 1, own), "leave ipxe.example.net to the former")
	require.ErrorIs(t, a.SetTrust(t.Context(), 7, own), ErrUnknownGeneration)
	require.ErrorIs(t, a.FixTrust(t.Context(), 7), ErrUnknownGeneration)

	_, err = a.RotateRoot(t.Context())
	require.NoError(t, err)
	require.False(t, a.Trust(2).Equal(given), "a new generation has a root of its own")
	require.True(t, a.Trust(1).Equal(given))
	require.NoError(t, a.SetTrust(t.Context(), 2, own))
}

func mustKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := newECKey()
	require.NoError(t, err)
	return k
}

func TestT12_DroppedGenerationIsRefusedAtOnce(t *testing.T) {
	cfg, c := testConfig(t)
	a := openAuthority(t, cfg)
	old := issue(t, a, "rack1")
	id, err := a.Verify([]*x509.Certificate{old}, c.Now())
	require.NoError(t, err)
	g := openGrants(t, cfg.Store, c)
	g.Good = a.Good
	require.NoError(t, g.OpenFor(t.Context(), "b", "m", "node1", id))
	grant, _, err := g.Mint(t.Context(), "b", id.Fingerprint)
	require.NoError(t, err)
	_, err = a.RotateRoot(t.Context())
	require.NoError(t, err)
	c.Add(time.Second)
	other := issue(t, a, "rack1")
	require.NoError(t, a.Good(id, c.Now()))

	changed := a.Changed()
	require.NoError(t, a.Drop(t.Context(), 1))
	<-changed
	require.NoError(t, a.Drop(t.Context(), 1), "again does no harm")
	for range 2 {
		require.Equal(t, CodeRevoked, refusal(t, verifies(a, old)).Code)
		require.Equal(t, CodeRevoked, refusal(t, a.Good(id, c.Now())).Code)
		require.NoError(t, verifies(a, other))
		require.Nil(t, a.Leafs(1))
		require.Equal(t, []string{StateRevoked, StateActive}, []string{a.Issued()[0].State, a.Issued()[1].State})
		a = openAuthority(t, cfg)
	}
	_, err = g.Redeem(t.Context(), grant, testAddr(1))
	require.Equal(t, CodeGrantBurned, code(t, err))
	require.Equal(t, []string{"gen-2", "intermediate.pem", "root.pem"}, listing(t, cfg.Dir), "its keys are gone")

	require.NoError(t, os.Remove(filepath.Join(cfg.Dir, "root.pem")))
	require.Equal(t, CodeUnknownCA, refusal(t, verifies(openAuthority(t, cfg), old)).Code, "nothing else needs them")
}

func TestT12_DropHoldsWithoutAStore(t *testing.T) {
	cfg, _ := testConfig(t)
	a := openAuthority(t, cfg)
	old := issue(t, a, "rack1")
	_, err := a.RotateRoot(t.Context())
	require.NoError(t, err)
	require.NoError(t, cfg.Store.Close())
	require.ErrorContains(t, a.Drop(t.Context(), 1), "generation 1 is dropped from now on")
	require.Equal(t, CodeRevoked, refusal(t, verifies(a, old)).Code)
	require.Contains(t, listing(t, cfg.Dir), "root.key", "not written down: a restart brings it back")
}

// TestKilledBetweenTwoSteps ends the process at each step of a change, and
// starts it again: the change is done or undone.
func TestKilledBetweenTwoSteps(t *testing.T) {
	for _, tt := range []struct {
		act   string
		steps []string
		done  bool
	}{
		{"rotate", []string{"retired", "key"}, false},
		{"rotate", []string{"certificate", "key moved", "moved", "leafs"}, true},
		{"root", []string{"root key", "issuers", "cross"}, true},
		{"root", []string{"recorded"}, true},
		{"drop", []string{"dropped"}, true},
	} {
		for _, step := range tt.steps {
			t.Run(tt.act+" "+step, func(t *testing.T) {
				cfg, _ := testConfig(t)
				a := openAuthority(t, cfg)
				if tt.act == "drop" {
					_, err := a.RotateRoot(t.Context())
					require.NoError(t, err)
				}
				before := newest(a)
				cert := issue(t, a, "rack1")
				kill(t, a, step, tt.act)
				a = openAuthority(t, cfg)
				after := newest(a)
				switch tt.act {
				case "rotate":
					require.Equal(t, tt.done, !after.intermediate.Equal(before.intermediate))
					require.Equal(t, tt.done, len(after.retired) == 1)
				case "root":
					require.Equal(t, step != "root key", after.number == 2, "whole it is taken up, half it is removed")
				case "drop":
					require.Len(t, a.Generations(), 1)
					require.NotContains(t, listing(t, cfg.Dir), "root.key")
				}
				require.NoError(t, verifies(a, cert), "what was issued before is good")
				require.NoError(t, verifies(a, issue(t, a, "rack2")))
				require.NoFileExists(t, filepath.Join(cfg.Dir, nextFile+".key"))
				require.NoFileExists(t, filepath.Join(cfg.Dir, nextFile+".pem"))
				for _, g := range a.Generations() {
					require.NoError(t, clientTrusts(a.Leafs(g.Number)[1], g.Host, start, g.Root))
					require.NoError(t, clientTrusts(a.Leafs(0)[0], "boot.example.net", start, g.Root))
				}
				_, err := a.Rotate(t.Context())
				require.NoError(t, err, "and it can be done again")
				require.NoError(t, verifies(a, cert))
				_, err = a.RotateRoot(t.Context())
				require.NoError(t, err)
				require.Equal(t, after.number+1, newest(openAuthority(t, cfg)).number)
			})
		}
	}
}

// kill ends a change at a step.
func kill(t *testing.T, a *Authority, step, act string) {
	t.Helper()
	a.steps = func(name string) {
		if name == step {
			panic("killed at " + step)
		}
	}
	if step == "root key" { // what is there before the first step
		require.NoError(t, os.Mkdir(filepath.Join(a.dir.dir, "gen-2"), 0o700))
		require.NoError(t, a.dir.sub("gen-2").ensureKey("root"))
		return
	}
	require.PanicsWithValue(t, "killed at "+step, func() {
		switch act {
		case "rotate":
			_, _ = a.Rotate(t.Context())
		case "root":
			_, _ = a.RotateRoot(t.Context())
		case "drop":
			_ = a.Drop(t.Context(), 1)
		}
	})
}

func TestRotate(t *testing.T) {
	cfg, c := testConfig(t)
	a := openAuthority(t, cfg)
	first, leaf := newest(a).intermediate, a.ServerCertificate().Leaf
	certs := []*x509.Certificate{issue(t, a, "rack1")}
	c.Add(24 * time.Hour)
	for n := range 3 {
		g, err := a.Rotate(t.Context())
		require.NoError(t, err)
		require.Len(t, g.Retired, n+1)
		require.True(t, g.Retired[0].Equal(first), "the oldest first")
		require.True(t, a.Generations()[0].Intermediate.Equal(g.Intermediate))
		certs = append(certs, issue(t, a, "rack1"))
		c.Add(24 * time.Hour)
	}
	require.False(t, a.ServerCertificate().Leaf.Equal(leaf))
	served := a.ServerCertificate().Leaf
	for range 2 {
		for _, cert := range certs {
			require.NoError(t, verifies(a, cert))
		}
		require.Len(t, a.Generations()[0].Retired, 3)
		require.True(t, a.ServerCertificate().Leaf.Equal(served))
		require.NoError(t, clientTrusts(a.ServerCertificate(), "ipxe.example.net", c.Now(), a.Root()))
		a = openAuthority(t, cfg)
	}
	require.Len(t, slices.DeleteFunc(listing(t, cfg.Dir), func(n string) bool { return filepath.Ext(n) != ".key" }), 4, "of the retired no key is left")

	// A rotation that fails leaves all as it was.
	good := newest(a).intermediate
	require.NoError(t, os.Rename(filepath.Join(cfg.Dir, "root.key"), filepath.Join(cfg.Dir, "away")))
	_, err := a.Rotate(t.Context())
	require.ErrorContains(t, err, "root.key")
	require.True(t, newest(a).intermediate.Equal(good))
	require.NoError(t, os.Rename(filepath.Join(cfg.Dir, "away"), filepath.Join(cfg.Dir, "root.key")))
	require.True(t, newest(openAuthority(t, cfg)).intermediate.Equal(good))

	c.Add(11 * 365 * day)
	_, err = a.IssueMachine(t.Context(), "rack1", time.Time{})
	require.ErrorContains(t, err, "nestctl ca rotate")
	_, err = a.Rotate(t.Context())
	require.NoError(t, err)
	require.True(t, newest(a).intermediate.NotAfter.Equal(newest(a).root.NotAfter), "no issuer outlives the root")
	issue(t, a, "rack1")
	c.Add(10 * 365 * day)
	_, err = a.Rotate(t.Context())
	require.ErrorContains(t, err, "nestctl ca rotate --root")
}

// TestMismatchedRotationIsRefused: files of two backups.
func TestMismatchedRotationIsRefused(t *testing.T) {
	cfg, _ := testConfig(t)
	a := openAuthority(t, cfg)
	require.NoError(t, a.dir.writeKey(nextFile, mustKey(t)))
	require.NoError(t, a.dir.writeCerts(nextFile, newest(a).intermediate))
	_, err := Open(t.Context(), cfg)
	require.ErrorContains(t, err, "restore both from the same backup")
	_, err = a.Rotate(t.Context())
	require.ErrorContains(t, err, "restart bootd")
}

// TestRotateRootWithoutSpace leaves nothing behind that a start would take up.
func TestRotateRootWithoutSpace(t *testing.T) {
	cfg, _ := testConfig(t)
	dir := t.TempDir()
	cfg.Store = openStore(t, dir)
	openAuthority(t, cfg)
	require.NoError(t, cfg.Store.Close())
	cfg.Store = openStoreWith(t, store.Config{Dir: dir, Reserve: 1 << 60})
	a := openAuthority(t, cfg)
	_, err := a.RotateRoot(t.Context())
	require.ErrorIs(t, err, store.ErrNoSpace)
	require.NotContains(t, listing(t, cfg.Dir), "gen-2")
	require.Len(t, a.Generations(), 1)

	require.NoError(t, cfg.Store.Close())
	cfg.Store = openStore(t, dir)
	a = openAuthority(t, cfg)
	require.NoError(t, cfg.Store.Close())
	_, err = a.RotateRoot(t.Context())
	require.ErrorContains(t, err, "the next start finds out")
	cfg.Store = openStore(t, dir)
	require.Len(t, openAuthority(t, cfg).Generations(), 2)
}

// TestRotateRootOutlivesItsRequest: whoever asked goes away while the new root is
// being made.
func TestRotateRootOutlivesItsRequest(t *testing.T) {
	for _, step := range []string{"issuers", "cross"} {
		cfg, _ := testConfig(t)
		a := openAuthority(t, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		a.steps = func(name string) {
			if name == step {
				cancel()
			}
		}
		g, err := a.RotateRoot(ctx)
		require.NoError(t, err, step)
		require.Equal(t, 2, g.Number)
		require.Len(t, openAuthority(t, cfg).Generations(), 2)
		_, err = a.Rotate(ctx)
		require.NoError(t, err, "nor does a rotation of the intermediate end with it")
	}
}

// TestRotateRootThatWasRecordedUnseen: the store has the record although the
// call that wrote it was told that it failed.
func TestRotateRootThatWasRecordedUnseen(t *testing.T) {
	cfg, _ := testConfig(t)
	a := openAuthority(t, cfg)
	a.steps = func(name string) {
		if name != "cross" {
			return
		}
		root, err := a.dirOf(2).readCert("root")
		require.NoError(t, err)
		value, err := json.Marshal(generationRecord{Number: 2, Root: fingerprintOf(root), Source: SourceOwn, Created: start})
		require.NoError(t, err)
		_, err = cfg.Store.Put(t.Context(), generationKey(2), value)
		require.NoError(t, err)
	}
	g, err := a.RotateRoot(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, g.Number)
	cert := issue(t, a, "rack1")
	a = openAuthority(t, cfg)
	require.Len(t, a.Generations(), 2)
	require.NoError(t, verifies(a, cert))
}

// TestRotateRootKeepsWhatMayBeRecorded: a second call fails after one of which
// nobody knows whether it was recorded.
func TestRotateRootKeepsWhatMayBeRecorded(t *testing.T) {
	cfg, _ := testConfig(t)
	dir := t.TempDir()
	cfg.Store = openStore(t, dir)
	a := openAuthority(t, cfg)
	require.NoError(t, cfg.Store.Close())
	_, err := a.RotateRoot(t.Context())
	require.ErrorContains(t, err, "repeat the command")

	cross := a.dirOf(2).path("cross-1.pem")
	require.NoError(t, os.Remove(cross))
	require.NoError(t, os.Mkdir(cross, 0o700))
	_, err = a.RotateRoot(t.Context())
	require.ErrorContains(t, err, "cross-1.pem")
	require.FileExists(t, a.dirOf(2).path("root.key"))

	require.NoError(t, os.Remove(cross))
	a.store = openStore(t, dir)
	_, err = a.RotateRoot(t.Context())
	require.NoError(t, err)
	require.Len(t, a.Generations(), 2)
}
