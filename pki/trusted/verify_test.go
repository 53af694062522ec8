package trusted

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
)

const day = 24 * time.Hour

func usages(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtKeyUsage = u }
}

func names(dns ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = dns }
}

func lives(from, until time.Time) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = from, until }
}

// withDirectoryName permits subjects with O=Rack9 only, and does not say that it
// matters.
func withDirectoryName(c *x509.Certificate) {
	c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Value: []byte{
		0x30, 0x18, 0xa0, 0x16, 0x30, 0x14, 0xa4, 0x12, 0x30, 0x10, 0x31, 0x0e, 0x30, 0x0c, 0x06, 0x03, 0x55, 0x04, 0x0a, 0x0c, 0x05, 'R', 'a', 'c', 'k', '9',
	}}}
}

// TestT13_VerifyAuthority has a reason for every refusal. Nothing about who may
// boot depends on what the client calls itself, or sends behind its leaf.
func TestT13_VerifyAuthority(t *testing.T) {
	w := newWorld(t)
	root := newCA(t, "corp root", nothing)
	sub := root.sub("corp issuing", nothing)
	sub2 := root.sub("corp unregistered", nothing)
	deep := sub2.sub("corp deep", nothing)
	servers := root.sub("corp servers", usages(x509.ExtKeyUsageServerAuth))
	bounded := root.sub("corp bounded", func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"rack1.example.net"}, true
	})
	directory := root.sub("corp directory", withDirectoryName)
	short := root.sub("corp short", func(c *x509.Certificate) { c.MaxPathLenZero = true })
	below := short.sub("corp below", nothing)
	ending := root.sub("corp ending", lives(start.Add(-day), start.Add(day)))
	alone := newCA(t, "alone root", nothing).sub("alone", nothing)
	foreign := newCA(t, "foreign", nothing)
	impostor := newCA(t, "corp root", nothing)
	machineKey := newKey(t)
	machine := ca{t, sub.issueWith(machineKey, "m", nothing), machineKey}
	odd := asn1.ObjectIdentifier{1, 2, 3, 4}

	narrow := newCA(t, "narrow", func(c *x509.Certificate) {
		c.ExcludedDNSDomains, c.PermittedEmailAddresses = []string{"example.com"}, []string{"example.net"}
	})

	tr := w.open()
	mustAdd(t, tr, caSpec("corp", sub.cert, root.cert, ending.cert))
	mustAdd(t, tr, caSpec("narrow", narrow.cert))
	limited := caSpec("limited", alone.cert)
	limited.Allow, limited.Machines = []string{"DNS:*.rack1.example.net", "CN=node-*"}, []string{"4C4C4544-0042-3510-8052-B4C04F564433"}
	limited.ExpiresAt = new(start.Add(30 * day))
	mustAdd(t, tr, limited)

	small, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)

	tests := []struct {
		name  string
		chain []*x509.Certificate
		at    time.Time
		code  string
		entry string
		why   string
	}{
		{"by a registered intermediate", chain(sub.issue("m", nothing)), start, "", "corp", ""},
		{"by the root", chain(root.issue("m", nothing)), start, "", "corp", ""},
		{"for servers too", chain(sub.issue("m", usages(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth))), start, "", "corp", ""},
		{"by an intermediate that was sent", chain(sub2.issue("m", nothing), sub2.cert), start, "", "corp", ""},
		{"by two that were sent, among strangers, in disorder", chain(deep.issue("m", nothing), foreign.cert, sub2.cert, deep.cert), start, "", "corp", ""},
		{"with all that was registered sent too", chain(sub.issue("m", nothing), sub.cert, root.cert), start, "", "corp", ""},
		{"an intermediate is missing", chain(sub2.issue("m", nothing)), start, pki.CodeUnknownCA, "", "intermediate missing"},
		{"one of two is missing", chain(deep.issue("m", nothing), deep.cert), start, pki.CodeUnknownCA, "", "intermediate missing"},
		{"the intermediate is the fifth that was sent", chain(sub2.issue("m", nothing), foreign.cert, foreign.cert, foreign.cert, foreign.cert, sub2.cert), start, pki.CodeUnknownCA, "", ""},
		{"another authority", chain(foreign.issue("m", nothing)), start, pki.CodeUnknownCA, "", "leads to no registered authority"},
		{"another authority, which is sent", chain(foreign.issue("m", nothing), foreign.cert), start, pki.CodeUnknownCA, "", ""},
		{"another authority, expired", chain(foreign.issue("m", nothing)), start.Add(400 * day), pki.CodeUnknownCA, "", ""},
		{"another authority of the same name", chain(impostor.issue("m", nothing), impostor.cert), start, pki.CodeUnknownCA, "", "its signature is not of that key"},
		{"not yet valid", chain(sub.issue("m", nothing)), start.Add(-2 * day), pki.CodeNotYetValid, "corp", "valid from 2026-09-30 12:00:00"},
		{"expired", chain(sub.issue("m", nothing)), start.Add(366 * day), pki.CodeExpired, "corp", "valid until 2027-10-01 12:00:00"},
		{"the root has expired", chain(sub.issue("m", lives(start, start.Add(20*365*day)))), start.Add(11 * 365 * day), pki.CodeExpired, "corp", "which issued it"},
		{"an intermediate has expired", chain(ending.issue("m", nothing)), start.Add(2 * day), pki.CodeExpired, "corp", "corp ending"},
		{"it never was valid together with its issuer", chain(ending.issue("m", lives(start.Add(2*day), start.Add(3*day)))), start.Add(2 * day), pki.CodeExpired, "corp", "corp ending"},
		{"no extended key usage", chain(sub.issue("m", usages())), start, pki.CodeWrongUsage, "corp", "no extended key usage"},
		{"any extended key usage", chain(sub.issue("m", usages(x509.ExtKeyUsageAny))), start, pki.CodeWrongUsage, "corp", "is any"},
		{"any beside clientAuth", chain(sub.issue("m", usages(x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageAny))), start, pki.CodeWrongUsage, "corp", "is any"},
		{"for servers", chain(sub.issue("m", usages(x509.ExtKeyUsageServerAuth))), start, pki.CodeWrongUsage, "corp", "does not include clientAuth"},
		{"for something else", chain(sub.issue("m", func(c *x509.Certificate) {
			c.ExtKeyUsage, c.UnknownExtKeyUsage = nil, []asn1.ObjectIdentifier{odd}
		})), start, pki.CodeWrongUsage, "corp", "does not include clientAuth"},
		{"may not sign", chain(sub.issue("m", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })), start, pki.CodeWrongUsage, "corp", "digitalSignature"},
		{"a critical extension that nobody knows", chain(sub.issue("m", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: odd, Critical: true, Value: []byte{5, 0}}}
		})), start, pki.CodeWrongUsage, "corp", "1.2.3.4"},
		{"an intermediate for servers", chain(servers.issue("m", nothing), servers.cert), start, pki.CodeWrongUsage, "corp", "not for TLS clients"},
		{"the intermediate's name constraints", chain(bounded.issue("m", names("a.rack1.example.net")), bounded.cert), start, "", "corp", ""},
		{"the intermediate's name constraints violated", chain(bounded.issue("m", names("a.rack2.example.net")), bounded.cert), start, pki.CodeNotAllowed, "corp", "name constraints"},
		{"the root's name constraints", chain(narrow.issue("m", names("a.example.net"))), start, "", "narrow", ""},
		{"the root's name constraints violated", chain(narrow.issue("m", names("a.example.com"))), start, pki.CodeNotAllowed, "narrow", "name constraints"},
		{"the root's name constraints violated by another name", chain(narrow.issue("m", func(c *x509.Certificate) { c.EmailAddresses = []string{"ops@example.org"} })), start, pki.CodeNotAllowed, "narrow", "name constraints"},
		{"the intermediate's name constraints, and a common name", chain(bounded.issue("A.rack1.example.net", nothing), bounded.cert), start, "", "corp", ""},
		{"the intermediate's name constraints violated by the common name", chain(bounded.issue("a.rack2.example.net", nothing), bounded.cert), start, pki.CodeNotAllowed, "corp", `forbid its common name "a.rack2.example.net"`},
		{"the intermediate's name constraints violated by the common name alone", chain(bounded.issue("a.rack2.example.net", names("a.rack1.example.net")), bounded.cert), start, pki.CodeNotAllowed, "corp", "forbid its common name"},
		{"the root's name constraints violated by the common name", chain(narrow.issue("a.example.com", nothing)), start, pki.CodeNotAllowed, "narrow", "forbid its common name"},
		{"the root's name constraints, and a common name", chain(narrow.issue("a.example.net", nothing)), start, "", "narrow", ""},
		{"name constraints of a form that nobody asks about", chain(directory.issue("m", nothing), directory.cert), start, pki.CodeNotAllowed, "corp", "form that is not understood (4)"},
		{"a short rsa key", chain(sub.issueWith(small, "m", nothing)), start, pki.CodeWrongUsage, "corp", "rsa key of 1024 bits: want 2048"},
		{"a curve that no handshake has", chain(sub.issueWith(p224, "m", nothing)), start, pki.CodeWrongUsage, "corp", "P-224"},
		{"path too long", chain(below.issue("m", nothing), below.cert, short.cert), start, pki.CodeUnknownCA, "corp", "path length"},
		{"issued by a machine", chain(machine.issue("x", nothing), machine.cert), start, pki.CodeUnknownCA, "", ""},
		{"the authority itself", chain(root.cert), start, pki.CodeWrongUsage, "corp", "an authority's own"},
		{"an authority below it", chain(root.sub("evil", usages(x509.ExtKeyUsageClientAuth)).cert), start, pki.CodeWrongUsage, "corp", "an authority's own"},
		{"allowed by its common name", chain(alone.issue("node-7", nothing)), start, "", "limited", ""},
		{"allowed by another name", chain(alone.issue("x", names("q.example.net", "A.RACK1.example.net"))), start, "", "limited", ""},
		{"on no list", chain(alone.issue("x", names("a.rack2.example.net"))), start, pki.CodeNotAllowed, "limited", "none of the 2 allowed patterns of ca limited"},
		{"the registration has ended", chain(alone.issue("node-7", nothing)), start.Add(31 * day), pki.CodeExpired, "limited", "registered until"},
		{"nothing", nil, start, pki.CodeNoCertificate, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, again := range []bool{false, true} { // the second is from memory
				id, err := tr.Verify(tt.chain, tt.at)
				if tt.code == "" {
					require.NoError(t, err)
					require.Equal(t, tt.entry, id.Name)
					require.Equal(t, pki.KindCA, id.Kind)
					require.Equal(t, pki.Digest(sha256.Sum256(tt.chain[0].Raw)), id.Fingerprint)
					require.Equal(t, pki.SerialOf(tt.chain[0]), id.Serial)
					require.NoError(t, tr.Good(id, tt.at))
					continue
				}
				r := refusal(t, err)
				require.Equal(t, tt.code, r.Code, r.Reason)
				require.Contains(t, r.Reason, tt.why, again)
				require.NotEmpty(t, r.Reason)
				require.Equal(t, tt.entry, r.Identity.Name)
				require.Zero(t, id)
			}
			// Explain comes to the same end.
			steps := tr.Explain(tt.chain, tt.at)
			last := steps[len(steps)-1]
			require.Equal(t, tt.code, last.Code, steps)
			for _, s := range steps {
				require.NotEmpty(t, s.Rule)
				require.NotEmpty(t, s.Reason)
			}
		})
	}
}

func TestIdentityHasTheLimitsOfItsEntry(t *testing.T) {
	w := newWorld(t)
	root := newCA(t, "corp", lives(start.Add(-day), start.Add(20*day)))
	tr := w.open()
	spec := caSpec("Corp", root.cert)
	spec.Machines = []string{"4C4C4544-0042-3510-8052-B4C04F564433"}
	e := mustAdd(t, tr, spec)
	leaf := root.issue("node-1", nothing)
	id, err := tr.Verify(chain(leaf), start)
	require.NoError(t, err)
	require.Equal(t, pki.Identity{
		Kind: pki.KindCA, ID: e.ID, Name: "Corp", Subject: "node-1", Machines: []string{"4c4c4544-0042-3510-8052-b4c04f564433"},
		Fingerprint: sha256.Sum256(leaf.Raw), Serial: pki.SerialOf(leaf), NotAfter: start.Add(20 * day),
		Path: []pki.Hop{{Serial: pki.SerialOf(leaf), Issuer: issuerOf(root.cert), By: `"CN=corp"`}},
	}, id, "it ends with the authority, which is before the leaf")
	require.NoError(t, tr.Good(id, id.NotAfter))
	require.Equal(t, pki.CodeExpired, codeOf(t, tr.Good(id, id.NotAfter.Add(1))))

	pin := pinSpec("pin", MatchKey, leaf)
	pin.ExpiresAt = new(start.Add(day))
	mustAdd(t, tr, pin)
	id, err = tr.Verify(chain(leaf), start)
	require.NoError(t, err)
	require.Equal(t, "pin", id.Name, "pins come first")
	require.Equal(t, start.Add(day), id.NotAfter)
	id, err = tr.Verify(chain(leaf), start.Add(2*day))
	require.NoError(t, err)
	require.Equal(t, "Corp", id.Name, "a pin that has ended is no obstacle")
	id.ID, id.Kind = 2, pki.KindPin
	require.Equal(t, pki.CodeExpired, codeOf(t, tr.Good(id, start.Add(2*day))))
}

func TestSubjectIsWhatTheCertificateCallsItself(t *testing.T) {
	root := newCA(t, "corp", nothing)
	link, err := url.Parse("spiffe://corp/node")
	require.NoError(t, err)
	long := make([]byte, 300)
	for i := range long {
		long[i] = "aé"[i%3]
	}
	for want, change := range map[string]func(*x509.Certificate){
		"a.example.net":      func(c *x509.Certificate) { c.Subject, c.DNSNames = pkix.Name{}, []string{"a.example.net", "b"} },
		"spiffe://corp/node": func(c *x509.Certificate) { c.Subject, c.URIs = pkix.Name{}, []*url.URL{link} },
		"ops@example.net":    func(c *x509.Certificate) { c.Subject, c.EmailAddresses = pkix.Name{}, []string{"ops@example.net"} },
		"O=corp":             func(c *x509.Certificate) { c.Subject = pkix.Name{Organization: []string{"corp"}} },
		"":                   func(c *x509.Certificate) { c.Subject = pkix.Name{} },
	} {
		require.Equal(t, want, subjectOf(root.issue("x", change)))
	}
	require.LessOrEqual(t, len(subjectOf(root.issue(string(long[:63])+"é", nothing))), maxSubject)
}

// TestT13_Pins: the right authority is not enough.
func TestT13_Pins(t *testing.T) {
	w := newWorld(t)
	root := newCA(t, "corp", nothing)
	key := newKey(t)
	first, renewed := root.issueWith(key, "node-1", nothing), root.issueWith(key, "node-1", lives(start, start.Add(700*day)))
	rekeyed, neighbour := root.issue("node-1", nothing), root.issue("node-2", nothing)
	elsewhere := newCA(t, "other", nothing).issueWith(key, "thief", nothing)
	noUsage := root.issueWith(key, "node-1", usages())

	tests := []struct {
		name  string
		match string
		leaf  *x509.Certificate
		at    time.Time
		code  string
	}{
		{"the certificate", MatchCertificate, first, start, ""},
		{"renewed with the same key", MatchCertificate, renewed, start, pki.CodeUnknownCA},
		{"the key", MatchKey, first, start, ""},
		{"the key survives renewal", MatchKey, renewed, start, ""},
		{"another key", MatchKey, rekeyed, start, pki.CodeUnknownCA},
		{"the key, whoever issued it", MatchKey, elsewhere, start, ""},
		{"right authority, another is pinned", MatchCertificate, neighbour, start, pki.CodeUnknownCA},
		{"right authority, another key is pinned", MatchKey, neighbour, start, pki.CodeUnknownCA},
		{"expired", MatchCertificate, first, start.Add(366 * day), pki.CodeExpired},
		{"expired, by key", MatchKey, first, start.Add(366 * day), pki.CodeExpired},
		{"not yet valid", MatchKey, first, start.Add(-2 * day), pki.CodeNotYetValid},
		{"no usage", MatchKey, noUsage, start, pki.CodeWrongUsage},
	}
	tr := w.open()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := mustAdd(t, tr, pinSpec("pin", tt.match, first))
			id, err := tr.Verify(chain(tt.leaf, root.cert), tt.at)
			require.Equal(t, tt.code, codeOf(t, err))
			if tt.code == "" {
				require.Equal(t, pki.KindPin, id.Kind)
				require.Equal(t, e.ID, id.ID)
			}
			if tt.leaf == neighbour {
				require.ErrorContains(t, err, "another certificate of the same issuer is pinned (pin pin), but not this one")
			}
			steps := tr.Explain(chain(tt.leaf), tt.at)
			require.Equal(t, tt.code, steps[len(steps)-1].Code)
			_, err = tr.Remove(t.Context(), e.ID)
			require.NoError(t, err)
			// A tombstone must not answer for the next case.
			for _, g := range tr.all.Load().gone {
				tr.replace(func(all *catalogue) *catalogue { return all.forget([]int64{g.id}) })
			}
		})
	}
}

func TestSelfSignedCertificateCanBePinned(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	// As openssl req -x509 makes them: an authority by its basic constraints.
	cert := newCA(t, "node-1", func(c *x509.Certificate) {
		c.ExtKeyUsage, c.KeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, 0
	}).cert
	mustAdd(t, tr, pinSpec("self", "", cert))
	id, err := tr.Verify(chain(cert), start)
	require.NoError(t, err)
	require.Equal(t, "self", id.Name)
}

// TestSameAuthorityTwice: one for each rack, with other limits.
func TestSameAuthorityTwice(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	a, b := caSpec("a", root.cert), caSpec("b", root.cert)
	a.Allow, b.Allow = []string{"CN=a*"}, []string{"CN=b*", "CN=ab*"}
	first := mustAdd(t, tr, a)
	second := mustAdd(t, tr, b)
	require.Contains(t, second.Faults[0], "ca a trusts the same certificate")
	for name, want := range map[string]string{"a1": "a", "b1": "b", "ab1": "a", "c": ""} {
		id, err := tr.Verify(chain(root.issue(name, nothing)), start)
		require.Equal(t, want, id.Name)
		require.Equal(t, want == "", err != nil)
	}
	ab := chain(root.issue("ab1", nothing))
	id, err := tr.Verify(ab, start)
	require.NoError(t, err)
	_, err = tr.Remove(t.Context(), first.ID)
	require.NoError(t, err)
	require.Equal(t, pki.CodeRevoked, codeOf(t, tr.Good(id, start)), "what was accepted by a is not accepted by b by itself")
	id, err = tr.Verify(ab, start)
	require.NoError(t, err)
	require.Equal(t, "b", id.Name)
}

// TestRenewedAuthorities: several paths lead from a leaf, and one is enough.
func TestRenewedAuthorities(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	key := newKey(t)
	old := root.subWith(key, "issuing", lives(start.Add(-day), start.Add(day)))
	young := root.subWith(key, "issuing", nothing)
	mustAdd(t, tr, caSpec("corp", root.cert, old.cert))
	leaf := young.issue("m", nothing)
	late := start.Add(10 * day)
	_, err := tr.Verify(chain(leaf), late)
	require.Equal(t, pki.CodeExpired, codeOf(t, err))
	_, err = tr.Verify(chain(leaf, young.cert), late)
	require.NoError(t, err)
	_, err = tr.Verify(chain(leaf), late)
	require.Equal(t, pki.CodeExpired, codeOf(t, err), "what was sent once does not count the next time")

	// A root renewed with another key, and a cross certificate for it by the
	// old one: either is enough.
	next := newCA(t, "corp", nothing)
	cross := root.subWith(next.key, "corp", nothing)
	m := next.issue("m", nothing)
	_, err = tr.Verify(chain(m), start)
	require.Equal(t, pki.CodeUnknownCA, codeOf(t, err))
	_, err = tr.Verify(chain(m, cross.cert), start)
	require.NoError(t, err)
	e := mustAdd(t, tr, caSpec("corp 2", root.cert, next.cert, cross.cert))
	require.Equal(t, []bool{true, true, false}, []bool{e.Certificates[0].Trusted, e.Certificates[1].Trusted, e.Certificates[2].Trusted})
	_, err = tr.Verify(chain(m), start)
	require.NoError(t, err)
}

// TestRegisteredIntermediateAlone trusts no sibling.
func TestRegisteredIntermediateAlone(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	mine, sibling := root.sub("mine", nothing), root.sub("sibling", nothing)
	mustAdd(t, tr, caSpec("mine", mine.cert))
	_, err := tr.Verify(chain(mine.issue("m", nothing), mine.cert, root.cert), start)
	require.NoError(t, err)
	_, err = tr.Verify(chain(sibling.issue("m", nothing), sibling.cert, root.cert), start)
	require.Equal(t, pki.CodeUnknownCA, codeOf(t, err))
}

func TestExplain(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	sub := root.sub("issuing", nothing)
	pinned := newCA(t, "other", nothing).issue("p", nothing)
	leaf := sub.issue("node-1", nothing)
	mustAdd(t, tr, pinSpec("a pin", "", pinned))
	mustAdd(t, tr, pinSpec("a key", MatchKey, pinned))
	spec := w.withCRL("first", "", append(sub.crl(start), root.crl(start)...), root.cert, sub.cert)
	spec.Allow = []string{"CN=rack-*"}
	mustAdd(t, tr, spec)
	spec = w.withCRL("second", "", append(sub.crl(start), root.crl(start)...), root.cert, sub.cert)
	spec.Allow, spec.ExpiresAt = []string{"CN=none", "CN=node-*"}, new(start.Add(day))
	mustAdd(t, tr, spec)
	steps := tr.Explain(chain(leaf), start)
	require.Regexp(t, `^its fingerprint [0-9a-f]{16}… is another than that of the pinned "CN=p"$`, steps[0].Reason)
	require.Regexp(t, `^its key [0-9a-f]{16}… is another than the pinned "CN=p"$`, steps[1].Reason)
	require.Equal(t, []pki.Step{
		{Rule: "pin a pin", Code: pki.CodeUnknownCA, Reason: steps[0].Reason},
		{Rule: "pin a key", Code: pki.CodeUnknownCA, Reason: steps[1].Reason},
		{Rule: "ca first: path", Reason: `issued by "CN=issuing", by "CN=corp"`},
		{Rule: "ca first: registration", Reason: "registered"},
		{Rule: "ca first: validity", Reason: "valid until 2027-10-01 12:00:00"},
		{Rule: "ca first: usage", Reason: "for TLS clients, and within the constraints of those who issued it"},
		{Rule: "ca first: crl", Reason: "not on the list of 2026-10-01 12:00:00"},
		{Rule: "ca first: allow", Code: pki.CodeNotAllowed, Reason: `its names ("node-1") match none of the 1 allowed patterns of ca first`},
		{Rule: "ca second: path", Reason: `issued by "CN=issuing", by "CN=corp"`},
		{Rule: "ca second: registration", Reason: "registered until 2026-10-02 12:00:00"},
		{Rule: "ca second: validity", Reason: "valid until 2026-10-02 12:00:00"},
		{Rule: "ca second: usage", Reason: "for TLS clients, and within the constraints of those who issued it"},
		{Rule: "ca second: crl", Reason: "not on the list of 2026-10-01 12:00:00"},
		{Rule: "ca second: allow", Reason: "allowed by CN=node-*"},
	}, steps)
	require.Empty(t, tr.proofs.byFP)
	steps = tr.Explain(chain(pinned), start)
	require.Equal(t, pki.Step{Rule: "pin a pin: path", Reason: "it is pinned by its certificate"}, steps[2], "after the two authorities")
	require.Equal(t, pki.CodeNoCertificate, tr.Explain(nil, start)[0].Code)
}

// TestSearchIsBounded gives chains that are made to keep a verifier busy.
func TestSearchIsBounded(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	// Four keys of one name that all signed each other: a leaf has paths
	// without end.
	var roots []ca
	var certs []*x509.Certificate
	for range 4 {
		roots = append(roots, newCA(t, "hydra", nothing))
	}
	for i, child := range roots {
		for j, parent := range roots {
			if i == j {
				certs = append(certs, child.cert)
			} else {
				certs = append(certs, parent.subWith(child.key, "hydra", nothing).cert)
			}
		}
	}
	mustAdd(t, tr, caSpec("hydra", certs...))
	sent := chain(roots[3].issue("m", nothing))
	for _, child := range roots {
		sent = append(sent, roots[0].subWith(child.key, "hydra", nothing).cert)
	}
	s := search{checked: map[[2]*x509.Certificate]bool{}, presented: sent[1:]}
	require.NotEmpty(t, s.authority(tr.all.Load().live[0], time.Time{}, sent[0]))
	require.LessOrEqual(t, len(s.checked), maxSignatures)
	require.Equal(t, maxSteps+1, s.steps, "and there were more")
	_, err := tr.Verify(sent, start)
	require.NoError(t, err)
}
