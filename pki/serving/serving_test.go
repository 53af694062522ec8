package serving

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	bootHost = "boot.example.net"
	ipxeHost = "ipxe.example.net"
)

func TestOwnAuthorityForAllNames(t *testing.T) {
	w := newWorld(t)
	c := w.open()
	for _, host := range []string{bootHost, ipxeHost} {
		root := c.Root(host)
		require.True(t, root.Equal(w.ca.Generations()[0].Root))
		chain, err := modern(root).connect(t, c, host)
		require.NoError(t, err)
		require.IsType(t, &ecdsa.PublicKey{}, chain[0].PublicKey)
		chain, err = ipxe(root).connect(t, c, host)
		require.NoError(t, err)
		require.IsType(t, &rsa.PublicKey{}, chain[0].PublicKey)
	}
	st := c.Status()
	require.Len(t, st, 4)
	sum := sha256.Sum256(c.Root(bootHost).Raw)
	for i, want := range []Status{
		{Host: bootHost, Type: ECDSA}, {Host: bootHost, Type: RSA}, {Host: ipxeHost, Type: ECDSA}, {Host: ipxeHost, Type: RSA},
	} {
		require.Equal(t, want.Host, st[i].Host)
		require.Equal(t, want.Type, st[i].Type)
		require.Equal(t, Own, st[i].Source)
		require.Equal(t, hex.EncodeToString(sum[:]), st[i].Root)
		require.Empty(t, st[i].Warnings)
	}
	require.Nil(t, c.Root("app.example.net"))
	_, err := c.For("app.example.net")(nil)
	require.ErrorContains(t, err, "no server certificate for app.example.net")
}

// TestGivenChains: a customer's authority, RSA and EC, wildcard and separate
// names. Names that no file covers are our own's.
func TestGivenChains(t *testing.T) {
	w := newWorld(t)
	own := w.ca.Generations()[0].Root
	for name, c := range map[string]struct {
		authority, key string
		names          []string
		covered        map[string]bool
	}{
		"rsa wildcard":          {"rsa", "rsa", []string{"*.example.net"}, map[string]bool{bootHost: true, ipxeHost: true, "app.example.net": true}},
		"ec wildcard":           {"p256", "p256", []string{"*.EXAMPLE.net"}, map[string]bool{bootHost: true, ipxeHost: true, "pkg-push.example.net": true}},
		"p-384":                 {"p384", "p384", []string{"*.example.net"}, map[string]bool{bootHost: true, ipxeHost: true}},
		"ec below rsa":          {"rsa", "p256", []string{bootHost, ipxeHost}, map[string]bool{bootHost: true, ipxeHost: true, "app.example.net": false}},
		"boot. alone":           {"rsa", "rsa", []string{bootHost}, map[string]bool{bootHost: true, ipxeHost: false}},
		"ipxe. alone":           {"rsa", "rsa", []string{ipxeHost}, map[string]bool{bootHost: false, ipxeHost: true}},
		"a name without use":    {"rsa", "rsa", []string{bootHost, "www.example.net"}, map[string]bool{bootHost: true, "www.example.net": false}},
		"not served yet":        {"rsa", "rsa", []string{"agent.example.net"}, map[string]bool{"agent.example.net": true, bootHost: false}},
		"wildcard of one label": {"rsa", "rsa", []string{"*.x.example.net", bootHost}, map[string]bool{bootHost: true, ipxeHost: false}},
	} {
		t.Run(name, func(t *testing.T) {
			ca := newCustomer(t, "Customer", c.authority)
			g := ca.issue(c.key, nil, c.names...)
			certs := w.open(g.write(t, files(t)))
			for host, covered := range c.covered {
				if covered {
					modern(ca.root).shows(t, certs, host, g.chain[0])
					require.True(t, ca.root.Equal(certs.Root(host)))
				} else if host == bootHost || host == ipxeHost {
					_, err := modern(own).connect(t, certs, host)
					require.NoError(t, err)
				} else {
					require.Nil(t, certs.Root(host))
				}
			}
			trust := own
			if c.covered[ipxeHost] {
				trust = ca.root
			}
			require.True(t, trust.Equal(w.ca.Trust(1)), "artifacts trust what ipxe. shows")
			for _, st := range certs.Status() {
				if covered, named := c.covered[st.Host]; named {
					require.Equal(t, covered, st.Source == Given, st.Host)
				}
			}
		})
	}
}

func TestTwoKeyTypesSideBySide(t *testing.T) {
	w := newWorld(t)
	ca := newCustomer(t, "Customer", "rsa")
	old, ec := ca.issue("rsa", nil, "*.example.net"), ca.issue("p256", nil, "*.example.net")
	c := w.open(old.write(t, files(t)), ec.write(t, files(t)))
	modern(ca.root).shows(t, c, ipxeHost, ec.chain[0])
	ipxe(ca.root).shows(t, c, ipxeHost, old.chain[0])
	for _, st := range c.Status() {
		require.Empty(t, st.Warnings)
	}
}

func TestNameBeforeWildcard(t *testing.T) {
	w := newWorld(t)
	wild, named := newCustomer(t, "Wild", "rsa"), newCustomer(t, "Named", "p256")
	all, one := wild.issue("rsa", nil, "*.example.net"), named.issue("p256", nil, bootHost)
	c := w.open(all.write(t, files(t)), one.write(t, files(t)))
	modern(named.root).shows(t, c, bootHost, one.chain[0])
	modern(wild.root).shows(t, c, ipxeHost, all.chain[0])

	other := newCustomer(t, "Other", "rsa").issue("rsa", nil, bootHost)
	c = w.open(all.write(t, files(t)), one.write(t, files(t)))
	modern(named.root).shows(t, c, bootHost, one.chain[0]) // after a restart too
	got := w.refused(all.write(t, files(t)), one.write(t, files(t)), other.write(t, files(t)))
	require.Contains(t, got, "boot.example.net: ")
	require.Contains(t, got, "CN=Named root")
	require.Contains(t, got, "CN=Other root: a client trusts one root of a name")
}

// TestTrustStaysWhereArtifactsHaveIt: what ipxe. shows must end in the root that
// is inside of the artifacts.
func TestTrustStaysWhereArtifactsHaveIt(t *testing.T) {
	w := newWorld(t)
	own := w.ca.Generations()[0].Root
	ca := newCustomer(t, "Customer", "rsa")
	wild, named := ca.issue("rsa", nil, "*.example.net").write(t, files(t)), ca.issue("rsa", nil, ipxeHost).write(t, files(t))
	require.NoError(t, w.ca.FixTrust(t.Context(), 1))

	require.Contains(t, w.refused(named), "nestctl ca rotate --root")
	require.True(t, own.Equal(w.ca.Trust(1)))
	c := w.open(wild)
	modern(ca.root).shows(t, c, bootHost, certOf(t, wild))
	_, err := ipxe(own).connect(t, c, ipxeHost)
	require.NoError(t, err, "a wildcard does not take the name from artifacts that trust our own root")
	require.Contains(t, c.Status()[1].Warnings[0], "is not used for this name")

	_, err = w.ca.RotateRoot(t.Context())
	require.NoError(t, err)
	c = w.open(wild)
	_, err = ipxe(own).connect(t, c, ipxeHost)
	require.NoError(t, err)
	modern(ca.root).shows(t, c, "ipxe-2.example.net", certOf(t, wild))
	require.True(t, ca.root.Equal(w.ca.Trust(2)))

	require.NoError(t, w.ca.FixTrust(t.Context(), 2))
	require.Contains(t, w.refused(), "ipxe-2.example.net", "the file that its artifacts need is gone")
	next := newCustomer(t, "Next", "rsa")
	got := w.refused(next.issue("rsa", nil, "*.example.net").write(t, files(t)))
	require.Contains(t, got, "ipxe-2.example.net: ")
	require.Contains(t, got, "CN=Customer root")
	require.True(t, own.Equal(w.ca.Trust(1)))
	require.True(t, ca.root.Equal(w.ca.Trust(2)))
}

func certOf(t *testing.T, f File) *x509.Certificate {
	t.Helper()
	held, err := f.read()
	require.NoError(t, err)
	p, err := f.parse(held)
	require.NoError(t, err)
	return p.leaf()
}

// TestTwoGenerationsOfGivenRoots: a customer changes the root with both wildcards
// in place.
func TestTwoGenerationsOfGivenRoots(t *testing.T) {
	w := newWorld(t)
	first, second := newCustomer(t, "First", "rsa"), newCustomer(t, "Second", "p256")
	one := first.issue("rsa", nil, "*.example.net").write(t, files(t))
	w.open(one)
	require.NoError(t, w.ca.FixTrust(t.Context(), 1))
	_, err := w.ca.RotateRoot(t.Context())
	require.NoError(t, err)
	two := second.issue("p256", nil, bootHost, "ipxe-2.example.net").write(t, files(t))
	c := w.open(one, two)
	modern(first.root).shows(t, c, ipxeHost, certOf(t, one))
	modern(second.root).shows(t, c, "ipxe-2.example.net", certOf(t, two))
	modern(second.root).shows(t, c, bootHost, certOf(t, two))
	require.True(t, first.root.Equal(w.ca.Trust(1)))
	require.True(t, second.root.Equal(w.ca.Trust(2)))
}
