package artifact

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

// carries demands that the set's files have the root and the address of a
// generation.
func (w *world) carries(s *Sets, i Info, generation int) {
	w.t.Helper()
	require.Equal(w.t, generation, i.Generation)
	host := "https://ipxe.test/"
	if generation > 1 {
		host = fmt.Sprintf("https://ipxe-%d.test/", generation)
	}
	f, err := s.Render(w.t.Context(), i.ID, i.Spec.Name+".ipxe")
	require.NoError(w.t, err)
	require.Contains(w.t, string(f.Data), host)
	f, err = s.Render(w.t.Context(), i.ID, i.Spec.Name+"/snponly.efi")
	require.NoError(w.t, err)
	root := sha256.Sum256(w.ca.Trust(generation).Raw)
	require.Contains(w.t, string(f.Data), string(root[:]))
}

func (w *world) rotateRoot() {
	w.t.Helper()
	_, err := w.ca.RotateRoot(w.t.Context())
	require.NoError(w.t, err)
}

func names(sets []Info) string {
	var all []string
	for _, i := range sets {
		all = append(all, i.Spec.Name)
	}
	return strings.Join(all, " ")
}

func TestSetsMoveFromGenerationToGeneration(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	one, open := w.create(s, Spec{Name: "rack1"}), w.create(s, Spec{Name: "open", Keyless: true})
	w.carries(s, one, 1)
	w.carries(s, open, 1)
	former, _ := w.credentialOf(one)
	require.ErrorContains(t, w.ca.SetTrust(t.Context(), 1, former), "its artifacts trust")

	w.rotateRoot()
	two := w.create(s, Spec{Name: "rack2"})
	w.carries(s, two, 2)
	w.carries(s, one, 1)
	require.Equal(t, "rack1 open", names(s.Depending(1)))
	require.Equal(t, "rack2", names(s.Depending(2)))

	s.Used("rack1", uuidA, 1, w.now())
	one, err := s.Renew(t.Context(), one.ID)
	require.NoError(t, err)
	open, err = s.Renew(t.Context(), open.ID)
	require.NoError(t, err)
	w.carries(s, one, 2)
	w.carries(s, open, 2)
	renewed, _ := w.credentialOf(one)
	require.NoError(t, w.verify(former), "media that were written before go on booting")
	require.NoError(t, w.verify(renewed))
	require.Equal(t, "rack1", names(s.Depending(1)), "a machine came by media of the old root")
	s.Used("rack1", uuidA, 2, w.now())
	require.Empty(t, s.Depending(1))
	for range 2 {
		require.Equal(t, "rack1 open rack2", names(s.Depending(2)))
		run(t, s)
		s = w.open()
	}
	require.NoError(t, w.ca.Drop(t.Context(), 1))
	w.refused(former, pki.CodeRevoked)
	require.NoError(t, w.verify(renewed))
	_, err = s.Delete(t.Context(), one.ID)
	require.NoError(t, err)
	w.refused(renewed, pki.CodeRevoked)
	_, err = s.Renew(t.Context(), one.ID)
	require.ErrorIs(t, err, ErrUnknown)
}

// TestSetsOfADroppedGenerationMove: what depends on a generation that is dropped
// by force is served again, by the clock or at the next start.
func TestSetsOfADroppedGenerationMove(t *testing.T) {
	for name, again := range map[string]func(*world, *Sets) *Sets{
		"by the clock":  func(w *world, s *Sets) *Sets { s.check(w.t.Context()); return s },
		"after a start": func(w *world, _ *Sets) *Sets { s := w.open(); s.check(w.t.Context()); return s },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := w.open()
			one := w.create(s, Spec{Name: "rack1"})
			w.create(s, Spec{Name: "open", Keyless: true})
			former, _ := w.credentialOf(one)
			w.rotateRoot()
			require.NoError(t, w.ca.Drop(t.Context(), 1))
			w.refused(former, pki.CodeRevoked)
			s = again(w, s)
			for _, i := range s.List() {
				require.Equal(t, Ready, i.Status)
				w.carries(s, i, 2)
			}
			now, _ := w.credentialOf(one)
			require.NoError(t, w.verify(now))
			require.Equal(t, s.List()[0].Generation, w.open().List()[0].Generation, "written down")
		})
	}
}

// TestT12_RevokedCertificateOfASetIsReplaced: the set lives on, its media do not.
func TestT12_RevokedCertificateOfASetIsReplaced(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	i := w.create(s, Spec{Name: "rack1"})
	former, _ := w.credentialOf(i)
	require.NoError(t, w.ca.Revoke(t.Context(), i.Certificate.Serial))
	w.refused(former, pki.CodeRevoked)
	require.Equal(t, Renewing, s.List()[0].Status)
	require.Contains(t, s.List()[0].Fault, "another one is made within a minute")
	s.check(t.Context())
	require.Equal(t, Ready, s.List()[0].Status)
	require.Empty(t, s.List()[0].Fault)
	require.Contains(t, w.log.String(), `former_media="refused, write them anew: `)
	now, _ := w.credentialOf(i)
	require.NoError(t, w.verify(now))
	require.Equal(t, pki.SerialOf(now), s.List()[0].Certificate.Serial)
	w.refused(former, pki.CodeRevoked)
}

// TestSetsMoveOnlyWhenTheyAreTold: a certificate that bootd replaces by itself is
// of the set's own generation, whose host name its machines can look up.
func TestSetsMoveOnlyWhenTheyAreTold(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	revoked, yearly := w.create(s, Spec{Name: "rack1"}), w.create(s, Spec{Name: "rack2"})
	w.rotateRoot()
	require.NoError(t, w.ca.Revoke(t.Context(), revoked.Certificate.Serial))
	s.check(t.Context())
	w.skew = 340 * 24 * time.Hour
	s.check(t.Context())
	for n, was := range []Info{revoked, yearly} {
		i := s.List()[n]
		require.NotEqual(t, was.Certificate.Serial, i.Certificate.Serial)
		w.carries(s, i, 1)
	}
	issued := w.issued()
	s.check(t.Context())
	require.Equal(t, issued, w.issued())

	w.skew = time.Until(w.ca.EndOf(1).Add(-24 * time.Hour))
	s.check(t.Context())
	w.carries(s, s.List()[0], 2)
	require.NoError(t, w.ca.Drop(t.Context(), 1))
	require.Zero(t, w.ca.EndOf(1))
	_, err := w.ca.IssueMachineOf(t.Context(), 1, "rack1", time.Time{})
	require.ErrorIs(t, err, pki.ErrUnknownGeneration)
}

func TestKilledWhileRenewing(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	i := w.create(s, Spec{Name: "rack1"})
	former, _ := w.credentialOf(i)
	w.rotateRoot()
	s.steps = func(step string) {
		if step == "reissued" {
			panic("killed")
		}
	}
	require.PanicsWithValue(t, "killed", func() { _, _ = s.Renew(t.Context(), i.ID) })
	for range 2 {
		s = w.open()
		w.carries(s, s.List()[0], 2)
	}
	now, _ := w.credentialOf(i)
	require.NoError(t, w.verify(now))
	require.NoError(t, w.verify(former))
	require.True(t, w.storeHolds([]byte(`"generation":2`)))
}

func TestRenewNeedsASetThatCanBeMade(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	i := w.create(s, Spec{Name: "rack1"})
	end := w.now().Add(time.Hour)
	visit := w.create(s, Spec{Name: "visit", ExpiresAt: &end})
	before := w.issued()
	s.stock.Store(nil)
	_, err := s.Renew(t.Context(), i.ID)
	require.ErrorContains(t, err, "there are no iPXE binaries")
	require.Equal(t, before, w.issued(), "no certificate is made in vain")
	s.stock.Store(w.stock)
	renewed, err := s.Renew(t.Context(), visit.ID)
	require.NoError(t, err)
	require.Equal(t, end.Unix(), renewed.Certificate.NotAfter.Unix(), "it keeps its end")
	w.skew = 2 * time.Hour
	_, err = s.Renew(t.Context(), visit.ID)
	require.ErrorContains(t, err, "expired")
	require.Equal(t, "rack1", names(s.Depending(1)))

	w.skew = 0
	w.rotateRoot()
	w.reopen(noSpaceAtAll)
	s = w.open()
	_, err = s.Renew(t.Context(), i.ID)
	require.ErrorIs(t, err, store.ErrNoSpace)
	w.carries(s, s.List()[0], 1)
}

// TestSetsFromBeforeGenerations opens what bootd kept before there were any.
func TestSetsFromBeforeGenerations(t *testing.T) {
	w := newWorld(t)
	before := "../pki/testdata/one-root"
	text, err := os.ReadFile(filepath.Join(before, "store.json"))
	require.NoError(t, err)
	entries := map[string]string{}
	require.NoError(t, json.Unmarshal(text, &entries))
	_, err = w.store.Delete(t.Context(), "pki/generations/1") // of newWorld
	require.NoError(t, err)
	for key, value := range entries {
		value = strings.ReplaceAll(value, "1.21.1+git20250501.dad20602+dfsg-1", w.stock.Versions()[0])
		_, err := w.store.Put(t.Context(), key, []byte(value))
		require.NoError(t, err)
	}
	put := func(from string, to ...string) {
		data, err := os.ReadFile(filepath.Join(before, from))
		require.NoError(t, err)
		path := filepath.Join(append([]string{w.dir}, to...)...)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, data, 0o600))
	}
	for _, name := range []string{"root.key", "root.pem", "intermediate.key", "intermediate.pem", "server.key", "server.pem"} {
		put(name, "pki", name)
	}
	put("rack1.pem", "sets", "rack1-1", credentialFile)
	put("token.secret", "sets", "token.secret")
	w.skew = time.Until(time.Date(2026, 10, 2, 0, 0, 0, 0, time.UTC))
	w.reopen(enough)
	s := w.open()
	sets := s.List()
	require.Equal(t, "rack1 open", names(sets))
	for _, i := range sets {
		require.Equal(t, Ready, i.Status, i.Fault)
		w.carries(s, i, 1)
	}
	require.Equal(t, "nXqmp_jUyzHHLro9v3zZSJLb2qQnTu3vw6GJp5SlLRg", sets[0].Token.Encode(), "addresses stay")
	cert, _ := w.credentialOf(sets[0])
	require.NoError(t, w.verify(cert))
	require.Equal(t, 2, w.issued(), "no certificate is replaced")
	require.Equal(t, 1, sets[0].Uses[0].Generation)
	require.Error(t, w.ca.SetTrust(t.Context(), 1, cert))
	w.rotateRoot()
	i, err := s.Renew(t.Context(), sets[0].ID)
	require.NoError(t, err)
	w.carries(s, i, 2)
}

// TestSetsOfAnECAuthority: iPXE sends a certificate only if its key is of the
// type of its issuer's, and before 2.0.0 it knows no EC keys at all.
func TestSetsOfAnECAuthority(t *testing.T) {
	w := newWorld(t)
	m, err := lab.FindMaterials()
	require.NoError(t, err)
	before := w.stock.Versions()[0]
	w.stock = w.openBases(m.IPXEDir(), m.IPXE2Dir())
	s := w.open()
	old, next := w.create(s, Spec{Name: "rack1", Base: before}), w.create(s, Spec{Name: "rack2"})
	former, _ := w.credentialOf(old)
	rsaCert, _ := w.credentialOf(next)

	w.ca = w.withEC()
	s = w.open()
	w.carries(s, s.List()[0], 1)
	fault := func(spec Spec) Fault {
		_, err := s.Create(t.Context(), spec)
		var invalid *Invalid
		require.ErrorAs(t, err, &invalid)
		return invalid.Faults[0]
	}
	require.Contains(t, fault(Spec{Name: "rack3", KeyType: KeyRSA}).Message, "Use p256")
	require.Contains(t, fault(Spec{Name: "rack3", Base: before}).Message, "knows no ECDSA")
	issued := w.issued()
	_, err = s.Renew(t.Context(), old.ID)
	require.ErrorContains(t, err, "knows no ECDSA")
	require.Equal(t, issued, w.issued(), "no certificate is made in vain")
	kept, _ := w.credentialOf(old)
	require.True(t, kept.Equal(former), "what it has is kept")

	for _, i := range []Info{w.create(s, Spec{Name: "rack3"}), renew(t, s, next)} {
		require.Equal(t, KeyP256, i.Spec.KeyType)
		w.carries(s, i, 2)
		cert, _ := w.credentialOf(i)
		require.Equal(t, x509.ECDSA, cert.PublicKeyAlgorithm)
		require.NoError(t, w.verify(cert))
	}
	require.NoError(t, w.verify(rsaCert))
	for _, i := range w.open().List() {
		require.Equal(t, Ready, i.Status, i.Fault)
		require.Equal(t, map[bool]string{true: KeyRSA, false: KeyP256}[i.ID == old.ID], i.Spec.KeyType)
	}
}

func renew(t *testing.T, s *Sets, i Info) Info {
	t.Helper()
	i, err := s.Renew(t.Context(), i.ID)
	require.NoError(t, err)
	return i
}

// withEC is the authority after an EC key was imported.
func (w *world) withEC() *pki.Authority {
	w.t.Helper()
	dir := w.t.TempDir()
	var chain []byte
	var parent *x509.Certificate
	var signer *ecdsa.PrivateKey
	for n, name := range []string{"root", "issuer"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(w.t, err)
		tpl := &x509.Certificate{
			SerialNumber: big.NewInt(int64(n + 1)), Subject: pkix.Name{CommonName: name}, NotBefore: w.now().Add(-48 * time.Hour), NotAfter: w.now().Add(90000 * time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
		if parent == nil {
			parent, signer = tpl, key
		}
		der, err := x509.CreateCertificate(rand.Reader, tpl, parent, key.Public(), signer)
		require.NoError(w.t, err)
		parent, err = x509.ParseCertificate(der)
		require.NoError(w.t, err)
		signer = key
		chain = append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), chain...)
	}
	der, err := x509.MarshalECPrivateKey(signer)
	require.NoError(w.t, err)
	require.NoError(w.t, os.WriteFile(filepath.Join(dir, "chain.pem"), chain, 0o600))
	require.NoError(w.t, os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600))
	ca, err := pki.Open(w.t.Context(), pki.Config{
		Dir: filepath.Join(w.dir, "pki"), Store: w.store, Hosts: []string{"ipxe.test"}, Now: w.now,
		Import: &pki.Import{Certificate: filepath.Join(dir, "chain.pem"), Key: filepath.Join(dir, "key.pem")},
	})
	require.NoError(w.t, err)
	return ca
}

// TestMediaOfAnOldRootAreNotForgotten has more machines than a set remembers come
// by new media, after one by old media and after as many as it remembers.
func TestMediaOfAnOldRootAreNotForgotten(t *testing.T) {
	for name, old := range map[string]int{"one machine": 1, "more than are remembered": maxUsers + 3} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := w.open()
			w.create(s, Spec{Name: "rack1", Keyless: true})
			at := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
			for n := range old {
				s.Used("rack1", fmt.Sprintf("old%d", n), 7, at.Add(time.Duration(n)*time.Second))
			}
			for n := range maxUsers + 50 {
				s.Used("rack1", fmt.Sprintf("new%d", n), 8, at.Add(time.Hour))
			}
			run(t, s)
			for _, s := range []*Sets{s, w.open()} {
				i := s.List()[0]
				require.Len(t, i.Uses, maxUsers)
				require.Len(t, s.Depending(7), 1)
				require.Len(t, s.Depending(8), 1)
				if old == 1 {
					require.Equal(t, "old0", i.Uses[maxUsers-1].Machine)
					require.Equal(t, []Use{{"", at.Add(time.Hour), 8}}, i.Others)
				} else {
					require.Equal(t, []Use{{"", at.Add(2 * time.Second), 7}, {"", at.Add(time.Hour), 8}}, i.Others)
				}
			}
			for n := range old { // all of them get new media
				s.Used("rack1", fmt.Sprintf("old%d", n), 8, at.Add(2*time.Hour))
			}
			require.Len(t, s.Depending(7), min(old-1, 1), "what is not known does not end")
		})
	}
}
