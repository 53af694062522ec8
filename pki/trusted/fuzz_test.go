package trusted

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
)

// allocated is what do takes from the heap.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// FuzzSpec reads foreign PEM as an authority's and as a pin's.
func FuzzSpec(f *testing.F) {
	fuzzIssuer(f)
	f.Fuzz(func(t *testing.T, pemText, allow string) {
		for _, s := range []Spec{
			{Name: "x", Kind: pki.KindCA, PEM: pemText, Allow: []string{allow}},
			{Name: "x", Kind: pki.KindPin, PEM: pemText, Match: MatchCertificate},
			{Name: "x", Kind: pki.KindPin, PEM: pemText, Match: MatchKey},
		} {
			var made material
			var err error
			require.Less(t, allocated(func() { made, err = s.check(start) }), uint64(64<<20))
			if err != nil {
				require.NotContains(t, err.Error(), "\n")
				continue
			}
			require.NotContains(t, pemText, "PRIVATE KEY")
			require.LessOrEqual(t, len(made.certs), maxCertificates)
			require.NotEmpty(t, made.anchors)
			for _, c := range made.anchors {
				require.True(t, slices.ContainsFunc(made.certs, c.Equal))
			}
			// What is stored is read back as the same.
			s.PEM = made.pem()
			again, err := s.check(start)
			require.NoError(t, err)
			require.Equal(t, s.PEM, again.pem())
			require.Len(t, again.anchors, len(made.anchors))
			m := newMember(1, s, start, made)
			all := newCatalogue(nil, nil).with(m)
			for _, c := range made.certs { // whoever presents what is registered
				for _, claim := range all.claims(c, made.certs) {
					claim.judge(start)
				}
				all.stranger([]*x509.Certificate{c})
			}
			all.entry(m, start)
		}
	})
}

// FuzzCRL reads foreign lists. None can be made without the key.
func FuzzCRL(f *testing.F) {
	issuer := fuzzIssuer(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		compareWithX509(t, data)
		var found lists
		var err error
		require.Less(t, allocated(func() { found, err = parseLists(data, []*x509.Certificate{issuer}, start) }), uint64(64<<20))
		if err != nil {
			require.Empty(t, found)
			return
		}
		for _, l := range found {
			require.True(t, bytes.Contains(data, []byte("-----BEGIN")) || bytes.Contains(data, l.raw))
			crl, err := x509.ParseRevocationList(l.raw)
			require.NoError(t, err)
			require.NoError(t, crl.CheckSignatureFrom(issuer))
			l.stale(time.Time{})
			require.NotEmpty(t, l.endReason())
		}
		merged, err := (&lists{}).merge(found, start)
		require.NoError(t, err)
		require.Len(t, *merged, len(found))
	})
}

// compareWithX509 holds what we read ourselves against another reader: a list
// that it can read has the same numbers here, or is refused.
func compareWithX509(t *testing.T, data []byte) {
	theirs, err := x509.ParseRevocationList(data)
	if err != nil {
		return // ours looks at no more times than it must
	}
	ours, entries, err := splitList(data)
	if err != nil {
		return
	}
	require.Equal(t, theirs.RawTBSRevocationList, ours.RawTBSRevocationList)
	require.Equal(t, theirs.RawIssuer, ours.RawIssuer)
	require.Equal(t, theirs.Extensions, ours.Extensions)
	revoked, err := readEntries(entries)
	if err != nil {
		return
	}
	for _, e := range theirs.RevokedCertificateEntries {
		for _, x := range e.Extensions {
			require.False(t, x.Critical)
		}
		if e.SerialNumber.Sign() >= 0 {
			require.Contains(t, revoked, string(e.SerialNumber.Bytes()))
		}
	}
}

// fuzzIssuer is the authority of the corpora; its key was thrown away. To make
// them anew, remove its file and run the tests.
func fuzzIssuer(f *testing.F) *x509.Certificate {
	path := filepath.Join("testdata", "issuer.pem")
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		data = makeCorpus(f, path)
	} else {
		require.NoError(f, err)
	}
	block, _ := pem.Decode(data)
	issuer, err := x509.ParseCertificate(block.Bytes)
	require.NoError(f, err)
	return issuer
}

func makeCorpus(f *testing.F, path string) []byte {
	root := newCA(f, "corp", nothing)
	other := newCA(f, "corp", nothing)
	full := root.crl(start, root.issue("a", nothing), root.issue("b", nothing))
	block, _ := pem.Decode(full)
	for name, data := range map[string][]byte{
		"pem": full, "der": block.Bytes, "empty": root.crl(start), "two": append(slices.Clone(full), other.crl(start)...),
		"cut": block.Bytes[:len(block.Bytes)/2], "foreign": newCA(f, "other", nothing).crl(start),
	} {
		writeCorpus(f, "FuzzCRL", name, fmt.Sprintf("[]byte(%q)\n", data))
	}
	cross := root.subWith(other.key, "corp", nothing)
	for name, spec := range map[string][2]string{
		"root": {text(root.cert), "CN=a*"}, "intermediate": {text(root.sub("sub", nothing).cert, root.cert), "DNS:*.example.net"},
		"leaf": {text(root.issue("m", nothing)), "URI:*"}, "cross": {text(root.cert, other.cert, cross.cert), "OU=**"},
		"constraints": {text(newCA(f, "x", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.net"} }).cert), "EMAIL:*@a"},
		"key":         {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "CN="}, "garbage": {"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "\x00"},
	} {
		writeCorpus(f, "FuzzSpec", name, fmt.Sprintf("string(%q)\nstring(%q)\n", spec[0], spec[1]))
	}
	require.NoError(f, os.WriteFile(path, []byte(text(root.cert)), 0o644))
	return []byte(text(root.cert))
}

func writeCorpus(f *testing.F, target, name, values string) {
	dir := filepath.Join("testdata", "fuzz", target)
	require.NoError(f, os.MkdirAll(dir, 0o755))
	require.NoError(f, os.WriteFile(filepath.Join(dir, name), []byte("go test fuzz v1\n"+values), 0o644))
}
