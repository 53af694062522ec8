package trusted

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

// run lets Run run until the test ends.
func run(t *testing.T, tr *Trusted) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { tr.Run(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
}

func TestAddNamesEveryFault(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	leaf := root.issue("m", nothing)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	good, err := rsaKey()
	require.NoError(t, err)
	odd := func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
	}
	sub := root.sub("sub", nothing)
	// An intermediate that names the root, but whose signature is another's.
	orphan := newCA(t, "corp", nothing).sub("orphan", nothing)
	long := text(root.cert)
	for len(long) <= maxPEM {
		long += long
	}
	var many []*x509.Certificate
	for range maxCertificates + 1 {
		many = append(many, root.sub("x", nothing).cert)
	}

	mustAdd(t, tr, caSpec("Taken", root.cert))
	mustAdd(t, tr, pinSpec("pinned", MatchKey, leaf))
	caWith := func(change func(*Spec)) Spec {
		s := caSpec("new", root.cert)
		change(&s)
		return s
	}
	crl := func(c CRL) Spec { return caWith(func(s *Spec) { s.CRL = &c }) }
	allow := func(a ...string) Spec { return caWith(func(s *Spec) { s.Allow = a }) }
	tests := []struct {
		name  string
		spec  Spec
		field string
		why   string
	}{
		{"no name", caSpec("", root.cert), "name", "is no name"},
		{"name", caSpec("a\nb", root.cert), "name", `"a\nb" is no name`},
		{"name too long", caSpec(strings.Repeat("a", 65), root.cert), "name", "is no name"},
		{"name taken", caSpec("tAKEN", root.cert), "name", "has already been taken"},
		{"kind", Spec{Name: "new", Kind: pki.KindURL, PEM: text(root.cert)}, "kind", `"url" is neither ca nor pin`},
		{"over", caWith(func(s *Spec) { s.ExpiresAt = new(start) }), "expires_at", "is over"},
		{"no pem", Spec{Name: "new", Kind: pki.KindCA}, "pem", "holds no certificate in PEM form"},
		{"der", Spec{Name: "new", Kind: pki.KindCA, PEM: string(root.cert.Raw)}, "pem", "holds no certificate in PEM form"},
		{"too long", Spec{Name: "new", Kind: pki.KindCA, PEM: long}, "pem", "want at most 262144"},
		{"too many", caSpec("new", many...), "pem", "holds more than 16 certificates"},
		{"twice", caSpec("new", root.cert, root.cert), "pem", "certificate 2 is there twice"},
		{"another thing", Spec{Name: "new", Kind: pki.KindCA, PEM: "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"}, "pem", `is a "X509 CRL"`},
		{"damaged", Spec{Name: "new", Kind: pki.KindCA, PEM: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, "pem", "block 1: is not a certificate"},
		{"a machine as authority", caSpec("new", leaf), "pem", "register it as a pin"},
		{"may not sign", caSpec("new", newCA(t, "x", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }).cert), "pem", "may not sign certificates"},
		{"unknown extension", caSpec("new", newCA(t, "x", odd).cert), "pem", "critical extension that is not understood: 1.2.3"},
		{"name constraints of another form", caSpec("new", newCA(t, "x", withDirectoryName).cert), "pem", "form that is not understood (4)"},
		{"expired authority", caSpec("new", newCA(t, "x", lives(start.Add(-2*day), start.Add(-day))).cert), "pem", "expired at 2026-09-30 12:00:00"},
		{"foreign intermediate", caSpec("new", root.cert, sub.cert, orphan.cert), "pem", `"CN=orphan" names another of the certificates as its issuer, which did not sign it`},
		{"weak key", caSpec("new", root.subWith(weak, "x", nothing).cert), "pem", "rsa key of 1024 bits"},
		{"odd curve", caSpec("new", root.subWith(p224, "x", nothing).cert), "pem", "P-224"},
		{"match of an authority", caWith(func(s *Spec) { s.Match = MatchKey }), "match", "is for pins"},
		{"two pins", Spec{Name: "new", Kind: pki.KindPin, PEM: text(leaf, root.cert)}, "pem", "holds 2 certificates"},
		{"match", pinSpec("new", "name", leaf), "match", `"name" is neither certificate nor key`},
		{"pinned already", pinSpec("new", MatchKey, leaf), "pem", "is pinned already: pinned"},
		{"expired pin", pinSpec("new", "", root.issue("m", lives(start.Add(-2*day), start.Add(-day)))), "pem", "expired"},
		{"pin of no use", pinSpec("new", "", root.issue("m", usages())), "pem", "no extended key usage"},
		{"allow list of a pin", Spec{Name: "new", Kind: pki.KindPin, PEM: text(root.issue("m", nothing)), Allow: []string{"CN=a"}}, "allow", "is for authorities"},
		{"list of a pin", Spec{Name: "new", Kind: pki.KindPin, PEM: text(root.issue("m", nothing)), CRL: &CRL{File: "/x"}}, "crl", "is for authorities"},
		{"pattern", allow("O=corp"), "allow", `"O=corp" is no pattern`},
		{"empty pattern", allow("CN="), "allow", "says nothing"},
		{"long pattern", allow("CN=" + strings.Repeat("a", 300)), "allow", "longer than"},
		{"many wildcards", allow("CN=" + strings.Repeat("*a", 9)), "allow", "wildcards"},
		{"control in pattern", allow("CN=a\x00"), "allow", "characters that no name has"},
		{"pattern twice", allow("CN=a", "CN=a"), "allow", "twice"},
		{"too many patterns", allow(make([]string, maxAllow+1)...), "allow", "101 patterns are more"},
		{"machine", caWith(func(s *Spec) { s.Machines = []string{"rack1"} }), "machines", `"rack1" is not a machine's UUID`},
		{"machine zero", caWith(func(s *Spec) { s.Machines = []string{"00000000-0000-0000-0000-000000000000"} }), "machines", "is not a machine's UUID"},
		{"machine twice", caWith(func(s *Spec) {
			s.Machines = []string{"4c4c4544-0042-3510-8052-b4c04f564433", "4C4C4544-0042-3510-8052-B4C04F564433"}
		}), "machines", "twice"},
		{"too many machines", caWith(func(s *Spec) { s.Machines = make([]string, maxMachines+1) }), "machines", "1001 are more"},
		{"list from nowhere", crl(CRL{}), "crl", "either a file or a url"},
		{"list from both", crl(CRL{File: "/x", URL: "http://x"}), "crl", "either a file or a url"},
		{"relative file", crl(CRL{File: "ca.crl"}), "crl", "no absolute path"},
		{"scheme", crl(CRL{URL: "ldap://pki.example.net/x"}), "crl", "url is no address"},
		{"password", crl(CRL{URL: "http://u:hunter2@pki.example.net/x"}), "crl", "url is no address"},
		{"policy", crl(CRL{File: "/x", Stale: "ignore"}), "crl", "is no policy"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tr.Add(t.Context(), tt.spec)
			var invalid *Invalid
			require.ErrorAs(t, err, &invalid)
			var all []string
			for _, f := range invalid.Faults {
				require.NotEmpty(t, f.Code)
				all = append(all, f.Field+": "+f.Message)
			}
			require.Contains(t, strings.Join(all, "\n"), tt.why)
			require.True(t, strings.HasPrefix(strings.Join(all, "\n"), tt.field), all)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
	_, err = tr.Add(t.Context(), Spec{Kind: pki.KindCA, Allow: []string{"x"}, Machines: []string{"y"}, CRL: &CRL{}})
	var invalid *Invalid
	require.ErrorAs(t, err, &invalid)
	require.Len(t, invalid.Faults, 5, "all at once")
	require.Len(t, tr.List(), 2)
	mustAdd(t, tr, caSpec("rsa", ca{t: t}.subWith(good, "rsa", nothing).cert))
}

// TestT19_PrivateKeysAreRefused and appear nowhere: not in the answer, the log
// or the store, whatever they are called.
func TestT19_PrivateKeysAreRefused(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	sec1, err := x509.MarshalECPrivateKey(root.key.(*ecdsa.PrivateKey))
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(root.key)
	require.NoError(t, err)
	canary := func(b []byte) string { return string(pem.EncodeToMemory(&pem.Block{Type: "X", Bytes: b}))[20:60] }
	for _, kind := range []string{"EC PRIVATE KEY", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "OPENSSH PRIVATE KEY", "CERTIFICATE"} {
		for _, der := range [][]byte{sec1, pkcs8} {
			block := string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
			for _, pemText := range []string{block, text(root.cert) + block, block + text(root.cert), text(root.cert) + block[:len(block)-30]} {
				if kind == "CERTIFICATE" && pemText == text(root.cert)+block[:len(block)-30] {
					continue // a block that does not end is no block; below
				}
				for _, k := range []pki.Kind{pki.KindCA, pki.KindPin, "other"} {
					_, err := tr.Add(t.Context(), Spec{Name: "x", Kind: k, PEM: pemText})
					var invalid *Invalid
					require.ErrorAs(t, err, &invalid)
					require.NotContains(t, err.Error(), canary(der))
					if kind != "CERTIFICATE" {
						require.ErrorContains(t, err, "holds a PRIVATE KEY")
					}
				}
			}
		}
	}
	// What stands around the certificates is not kept.
	loose := string(pem.EncodeToMemory(&pem.Block{Type: "SECRET", Bytes: pkcs8}))
	e := mustAdd(t, tr, Spec{Name: "x", Kind: pki.KindCA, PEM: loose[30:] + text(root.cert) + loose[:len(loose)-30]})
	require.Equal(t, text(root.cert), e.PEM)
	entries, err := w.store.List(t.Context(), "")
	require.NoError(t, err)
	for _, entry := range entries {
		require.NotContains(t, string(entry.Value), canary(pkcs8))
	}
	require.NotContains(t, w.logged(), canary(pkcs8))
}

// TestT12_RemoveActsAtOnce on whoever asks anew and on who is here already.
func TestT12_RemoveActsAtOnce(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	leaf, pinned := root.issue("m", nothing), newCA(t, "other", nothing).issue("p", nothing)
	authority := mustAdd(t, tr, caSpec("corp", root.cert))
	pin := mustAdd(t, tr, pinSpec("pin", "", pinned))
	for _, tt := range []struct {
		entry Entry
		leaf  *x509.Certificate
	}{{authority, leaf}, {pin, pinned}} {
		id, err := tr.Verify(chain(tt.leaf), start)
		require.NoError(t, err)
		changed := tr.Changed()
		was, err := tr.Remove(t.Context(), tt.entry.ID)
		require.NoError(t, err)
		require.Equal(t, tt.entry.ID, was.ID)
		require.True(t, rang(changed))
		check := func(tr *Trusted) {
			t.Helper()
			_, err = tr.Verify(chain(tt.leaf), start)
			r := refusal(t, err)
			require.Equal(t, pki.CodeRevoked, r.Code)
			require.Equal(t, tt.entry.Name, r.Identity.Name)
			require.ErrorContains(t, err, "was removed at 2026-10-01 12:00:00")
			require.Equal(t, pki.CodeRevoked, codeOf(t, tr.Good(id, start)))
			steps := tr.Explain(chain(tt.leaf), start)
			require.Equal(t, pki.CodeRevoked, steps[len(steps)-1].Code)
		}
		check(tr)
		check(w.open())
		_, err = tr.Remove(t.Context(), tt.entry.ID)
		require.ErrorIs(t, err, ErrUnknown)
		_, ok := tr.Get(tt.entry.ID)
		require.False(t, ok)
	}
	require.Empty(t, tr.List())

	// Registered again, it is another entry; who came by the former one comes again.
	again := mustAdd(t, tr, caSpec("corp", root.cert))
	require.EqualValues(t, 3, again.ID, "no number is used twice")
	_, err := tr.Verify(chain(leaf), start)
	require.NoError(t, err)

	// After 90 days nobody knows any more that they ever were.
	_, err = tr.Remove(t.Context(), again.ID)
	require.NoError(t, err)
	w.add(remember + time.Hour)
	tr.upkeep(t.Context())
	_, err = tr.Verify(chain(leaf), start)
	require.Equal(t, pki.CodeUnknownCA, codeOf(t, err))
	entries, err := w.store.List(t.Context(), "trusted")
	require.NoError(t, err)
	require.Len(t, entries, 1, "the last number")
	require.EqualValues(t, 4, mustAdd(t, w.open(), caSpec("corp", root.cert)).ID)
}

// TestT12_RemoveWithoutStore is refused to be forgotten until it is written.
func TestT12_RemoveWithoutStore(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	e := mustAdd(t, tr, caSpec("corp", root.cert))
	id, err := tr.Verify(chain(root.issue("m", nothing)), start)
	require.NoError(t, err)
	dead := openStore(t, t.TempDir())
	require.NoError(t, dead.Close())

	tr.cfg.Store = dead
	changed := tr.Changed()
	_, err = tr.Remove(t.Context(), e.ID)
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.ErrorContains(t, err, "is refused from now on, but a restart would forget that")
	require.True(t, rang(changed))
	require.Equal(t, pki.CodeRevoked, codeOf(t, tr.Good(id, start)))
	require.True(t, tr.List()[0].Removing)
	require.Contains(t, tr.List()[0].Faults[0], "removed")
	got, ok := tr.Get(e.ID)
	require.True(t, ok)
	require.True(t, got.Removing)
	_, err = tr.Remove(t.Context(), e.ID)
	require.ErrorIs(t, err, store.ErrUnavailable, "the same call tries again")
	tr.upkeep(t.Context())
	require.Contains(t, w.logged(), "a removal was not written down")
	_, err = tr.Add(t.Context(), caSpec("corp", root.cert))
	require.Error(t, err)

	tr.cfg.Store = w.store
	_, err = tr.Add(t.Context(), caSpec("CORP", root.cert))
	require.ErrorContains(t, err, "has already been taken", "its name is not free yet")
	tr.upkeep(t.Context())
	require.Empty(t, tr.List())
	require.Empty(t, w.open().List())
	mustAdd(t, tr, caSpec("CORP", root.cert))
}

// TestFailedAdditionIsUndone: of a write that was given up nobody knows whether
// it was done.
func TestFailedAdditionIsUndone(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	mustAdd(t, tr, caSpec("first", root.cert))
	r := record{ID: 2, Spec: caSpec("second", root.cert)}
	tr.undo[2] = r
	other := w.open() // writes what the first believes to have failed
	mustAdd(t, other, r.Spec)
	require.Len(t, w.open().List(), 2)
	tr.upkeep(t.Context())
	require.Empty(t, tr.undo)
	require.Len(t, w.open().List(), 1)

	tr.undo[3] = record{ID: 3, Spec: caSpec("third", root.cert)} // was not done
	mustAdd(t, tr, caSpec("third", root.cert))
	tr.upkeep(t.Context())
	require.Len(t, w.open().List(), 2, "and its name belongs to another by now")
}

// TestEndBetweenAnySteps: an entry is there or it is not.
func TestEndBetweenAnySteps(t *testing.T) {
	root := newCA(t, "corp", nothing)
	leaf := root.issue("m", nothing)
	ended := func(tr *Trusted, at string, do func()) {
		t.Helper()
		tr.steps = func(step string) {
			if step == at {
				panic(at)
			}
		}
		require.PanicsWithValue(t, at, do)
	}
	for at, want := range map[string]string{"written": "", "condemned": "", "buried": pki.CodeRevoked} {
		t.Run(at, func(t *testing.T) {
			w := newWorld(t)
			tr := w.open()
			spec := w.withCRL("corp", "", root.crl(start), root.cert)
			if at == "written" {
				ended(tr, at, func() { _, _ = tr.Add(context.Background(), spec) })
			} else {
				e := mustAdd(t, tr, spec)
				ended(tr, at, func() { _, _ = tr.Remove(context.Background(), e.ID) })
			}
			tr = w.open()
			_, err := tr.Verify(chain(leaf), start)
			require.Equal(t, want, codeOf(t, err))
			require.Len(t, tr.List(), map[bool]int{true: 1, false: 0}[want == ""])
			files, err := filepath.Glob(filepath.Join(w.dir, "crl", "*"))
			require.NoError(t, err)
			require.Len(t, files, len(tr.List()))
		})
	}
}

func TestUses(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	e := mustAdd(t, tr, caSpec("corp", root.cert))
	other := mustAdd(t, tr, caSpec("other", root.cert))
	require.Zero(t, e.Uses)
	require.Nil(t, e.LastUsed)
	for i := range 150 {
		tr.Used(e.ID, "node", fmt.Sprint("machine-", i%120), 1+i/75, start.Add(time.Duration(i)*time.Second))
	}
	tr.Used(99, "node", "machine", 1, start)
	check := func(tr *Trusted) {
		t.Helper()
		got, ok := tr.Get(e.ID)
		require.True(t, ok)
		require.EqualValues(t, 150, got.Uses)
		require.Len(t, got.UsedBy, maxUsers)
		require.Equal(t, Use{"node", "machine-29", start.Add(149 * time.Second), 2}, got.UsedBy[0])
		require.Equal(t, start.Add(149*time.Second), *got.LastUsed)
		require.Equal(t, []Use{{At: start.Add(49 * time.Second), Generation: 1}}, got.Others)
	}
	check(tr)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tr.Run(ctx) // writes before it returns
	check(w.open())
	_, err := tr.Remove(t.Context(), e.ID)
	require.NoError(t, err)
	tr.Used(e.ID, "node", "machine", 1, start)
	tr.Used(other.ID, "node", "machine", 1, start)
	tr.upkeep(t.Context())
	entries, err := w.store.List(t.Context(), usePrefix)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.Equal(t, useKey(other.ID), entries[0].Key)
}

// TestDamagedRecords accept nobody, can be removed, and leave the others alone.
func TestDamagedRecords(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	leaf := root.issue("m", nothing)
	e := mustAdd(t, tr, caSpec("corp", root.cert))
	_, err := w.store.Put(t.Context(), recordKey(e.ID), []byte("{"))
	require.NoError(t, err)
	_, err = w.store.Put(t.Context(), recordPrefix+"x", []byte("{"))
	require.NoError(t, err)
	_, err = w.store.Put(t.Context(), recordKey(7), []byte(`{"id":7,"spec":{"name":"new","kind":"tpm"}}`))
	require.NoError(t, err)
	tr = w.open()
	require.Len(t, tr.List(), 2)
	require.Equal(t, "corp", tr.List()[0].Name)
	require.Equal(t, "damaged-7", tr.List()[1].Name)
	require.Contains(t, tr.List()[0].Faults[0], "is damaged")
	_, err = tr.Verify(chain(leaf), start)
	require.Equal(t, pki.CodeUnknownCA, codeOf(t, err))
	require.NotEmpty(t, tr.Explain(chain(leaf), start))
	for _, e := range tr.List() {
		_, err := tr.Remove(t.Context(), e.ID)
		require.NoError(t, err)
	}
	tr = w.open()
	require.Empty(t, tr.List())
	mustAdd(t, tr, caSpec("corp", root.cert))
	_, err = tr.Verify(chain(leaf), start)
	require.NoError(t, err)
}

func TestLimitOfEntries(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", nothing)
	for i := range maxEntries {
		tr.replace(func(all *catalogue) *catalogue {
			return all.with(newMember(int64(1000+i), caSpec(fmt.Sprint("x", i), root.cert), start, material{}))
		})
	}
	_, err := tr.Add(t.Context(), caSpec("one more", root.cert))
	require.ErrorContains(t, err, "remove one first")
}

func TestEntryNamesWhatEnds(t *testing.T) {
	w := newWorld(t)
	tr := w.open()
	root := newCA(t, "corp", lives(start.Add(-day), start.Add(40*day)))
	spec := caSpec("corp", root.cert)
	spec.ExpiresAt = new(start.Add(35 * day))
	e := mustAdd(t, tr, spec)
	require.Equal(t, start.Add(35*day), e.NotAfter)
	require.Empty(t, e.Faults)
	require.True(t, e.Certificates[0].Trusted)
	require.Equal(t, "CN=corp", e.Certificates[0].Subject)
	pin := mustAdd(t, tr, pinSpec("key", MatchKey, root.issue("m", nothing)))
	require.True(t, pin.NotAfter.IsZero(), "a key does not end")
	w.add(20 * day)
	require.Contains(t, tr.List()[0].Faults[0], "expires at")
	w.add(21 * day)
	require.Contains(t, tr.List()[0].Faults[0], "expired at")
	require.Contains(t, tr.List()[0].Faults[1], "registration ended")
	w.add(-50 * day)
	require.Contains(t, tr.List()[0].Faults[0], "is the clock right?")
}

func TestOpenRefusesAnOpenDirectory(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, os.Mkdir(filepath.Join(w.dir, "crl"), 0o700))
	require.NoError(t, os.Chmod(filepath.Join(w.dir, "crl"), 0o777))
	_, err := Open(t.Context(), w.config())
	require.ErrorContains(t, err, "run: chmod 0700")
	_, err = Open(t.Context(), Config{})
	require.ErrorContains(t, err, "are required")
}
